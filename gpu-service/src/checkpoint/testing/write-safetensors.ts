import { writeFileSync } from "node:fs";

export interface TestTensor {
  dtype: "F32" | "F16" | "BF16" | "I64";
  shape: number[];
  bytes: Uint8Array;
}

/** Writes a safetensors file. `header` may spoil the header before it is written. */
export function writeSafetensors(
  path: string,
  tensors: Record<string, TestTensor>,
  header: (entries: Record<string, { dtype: string; shape: number[]; data_offsets: number[] }>) => unknown = (e) => e,
): void {
  const entries: Record<string, { dtype: string; shape: number[]; data_offsets: number[] }> = {};
  let offset = 0;
  for (const [name, { dtype, shape, bytes }] of Object.entries(tensors)) {
    entries[name] = { dtype, shape, data_offsets: [offset, offset + bytes.length] };
    offset += bytes.length;
  }
  const json = Buffer.from(JSON.stringify(header(entries)));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(json.length));
  writeFileSync(path, Buffer.concat([prefix, json, ...Object.values(tensors).map(({ bytes }) => bytes)]));
}

/** A float32 tensor. */
export function f32(shape: number[], values: Float32Array): TestTensor {
  return { dtype: "F32", shape, bytes: new Uint8Array(values.buffer, values.byteOffset, values.byteLength) };
}
