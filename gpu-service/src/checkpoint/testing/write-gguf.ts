import { closeSync, ftruncateSync, openSync, writeSync } from "node:fs";

/** A metadata value with its GGUF type. */
export type GgufValue =
  | { type: "u32" | "i32" | "f32" | "u64"; value: number }
  | { type: "bool"; value: boolean }
  | { type: "string"; value: string }
  | { type: "strings"; value: string[] }
  | { type: "f32s" | "i32s"; value: number[] };

export interface GgufTestTensor {
  /** Outermost dimension first; written the other way round, as GGUF has it. */
  shape: number[];
  /** Number of the block format. */
  type: number;
  /** A number stands for so many zeros, which take no room on the disk. */
  bytes: Uint8Array | number;
}

const TYPE = { u32: 4, i32: 5, f32: 6, bool: 7, string: 8, array: 9, u64: 10 } as const;
const ALIGNMENT = 32;

/** Writes a GGUF file of version 3. */
export function writeGguf(
  path: string,
  metadata: Record<string, GgufValue>,
  tensors: Record<string, GgufTestTensor>,
): void {
  const head: Buffer[] = [
    Buffer.from("GGUF"),
    u32(3),
    u64(Object.keys(tensors).length),
    u64(Object.keys(metadata).length),
  ];
  for (const [key, value] of Object.entries(metadata)) head.push(string(key), ...encode(value));
  const data: { at: number; bytes: Uint8Array }[] = [];
  let offset = 0;
  for (const [name, { shape, type, bytes }] of Object.entries(tensors)) {
    head.push(string(name), u32(shape.length), ...shape.toReversed().map(u64), u32(type), u64(offset));
    if (typeof bytes !== "number") data.push({ at: offset, bytes });
    const length = typeof bytes === "number" ? bytes : bytes.length;
    offset += length + padding(length);
  }
  const header = Buffer.concat(head);
  const start = header.length + padding(header.length);
  const file = openSync(path, "w");
  writeSync(file, header, 0, header.length, 0);
  for (const { at, bytes } of data) writeSync(file, bytes, 0, bytes.length, start + at);
  ftruncateSync(file, start + offset);
  closeSync(file);
}

function encode(entry: GgufValue): Buffer[] {
  switch (entry.type) {
    case "u32":
      return [u32(TYPE.u32), u32(entry.value)];
    case "i32":
      return [u32(TYPE.i32), i32(entry.value)];
    case "u64":
      return [u32(TYPE.u64), u64(entry.value)];
    case "f32":
      return [u32(TYPE.f32), float(entry.value)];
    case "bool":
      return [u32(TYPE.bool), Buffer.of(entry.value ? 1 : 0)];
    case "string":
      return [u32(TYPE.string), string(entry.value)];
    case "strings":
      return [u32(TYPE.array), u32(TYPE.string), u64(entry.value.length), ...entry.value.map(string)];
    case "f32s":
      return [u32(TYPE.array), u32(TYPE.f32), u64(entry.value.length), ...entry.value.map(float)];
    case "i32s":
      return [u32(TYPE.array), u32(TYPE.i32), u64(entry.value.length), ...entry.value.map(i32)];
  }
}

function padding(length: number): number {
  return (ALIGNMENT - (length % ALIGNMENT)) % ALIGNMENT;
}

function u32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeUInt32LE(value);
  return bytes;
}

function i32(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeInt32LE(value);
  return bytes;
}

function u64(value: number): Buffer {
  const bytes = Buffer.alloc(8);
  bytes.writeBigUInt64LE(BigInt(value));
  return bytes;
}

function float(value: number): Buffer {
  const bytes = Buffer.alloc(4);
  bytes.writeFloatLE(value);
  return bytes;
}

function string(text: string): Buffer {
  const bytes = Buffer.from(text);
  return Buffer.concat([u64(bytes.length), bytes]);
}
