import { type FileHandle, open } from "node:fs/promises";
import { z } from "zod";
import { CheckpointError } from "../checkpoint-error.ts";
import { bfloat16ToFloat32 } from "../float16.ts";
import { rowsPerChunk } from "../model-source.ts";
import { readFully } from "../read-fully.ts";

/** The format's own limit. */
const MAX_HEADER_BYTES = 100_000_000;
const DTYPE_BYTES = { F32: 4, F16: 2, BF16: 2 } as const;
type Dtype = keyof typeof DTYPE_BYTES;

const HeaderEntry = z.object({
  dtype: z.string(),
  shape: z.array(z.int().min(0)).max(8),
  data_offsets: z.tuple([z.int().min(0), z.int().min(0)]),
});
const Header = z.record(z.string(), z.unknown());

export interface SafetensorsTensor {
  dtype: string;
  shape: number[];
  /** Position of the first byte in the file. */
  start: number;
  bytes: number;
}

/** One `.safetensors` file: its header checked against the file's size, its tensors read in chunks. */
export class SafetensorsFile {
  readonly path: string;
  readonly tensors: ReadonlyMap<string, SafetensorsTensor>;
  readonly #file: FileHandle;

  private constructor(path: string, file: FileHandle, tensors: Map<string, SafetensorsTensor>) {
    this.path = path;
    this.#file = file;
    this.tensors = tensors;
  }

  /** @throws CheckpointError when the file cannot be read, is truncated or its header is malformed. */
  static async open(path: string): Promise<SafetensorsFile> {
    let file: FileHandle;
    try {
      file = await open(path);
    } catch (error) {
      throw new CheckpointError(path, `cannot be read (${error instanceof Error ? error.message : error})`);
    }
    try {
      return new SafetensorsFile(path, file, await readHeader(file, path));
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /** @throws CheckpointError when the tensor is missing or has another shape or a type other than F32, F16 and BF16. */
  requireTensor(name: string, shape: readonly number[]): SafetensorsTensor & { dtype: Dtype } {
    const tensor = this.tensors.get(name);
    if (!tensor) throw new CheckpointError(this.path, `tensor '${name}' is missing`);
    if (tensor.shape.join() !== shape.join()) {
      throw new CheckpointError(
        this.path,
        `tensor '${name}' has shape [${tensor.shape}], but config.json needs [${shape}]`,
      );
    }
    const { dtype } = tensor;
    if (!isDtype(dtype)) {
      throw new CheckpointError(this.path, `tensor '${name}' has type ${dtype}; only F32, F16 and BF16 are supported`);
    }
    return { ...tensor, dtype };
  }

  /**
   * A tensor's values in chunks of whole rows (a vector is one row). The chunk's memory is used again for the next one.
   * @param shape the shape that it must have.
   * @throws CheckpointError as `requireTensor` does, and when the file ends early.
   */
  async *read(name: string, shape: readonly number[]): AsyncGenerator<Float32Array> {
    const tensor = this.requireTensor(name, shape);
    const { dtype } = tensor;
    const width = DTYPE_BYTES[dtype];
    const rowLength = shape.at(-1) ?? 1;
    const total = tensor.bytes / width;
    const capacity = Math.min(total, rowsPerChunk(rowLength) * rowLength);
    const raw = new Uint8Array(capacity * width);
    const values = new Float32Array(capacity);
    for (let done = 0; done < total; done += capacity) {
      const count = Math.min(capacity, total - done);
      await readFully(this.#file, this.path, raw.subarray(0, count * width), tensor.start + done * width);
      widen(dtype, raw, values);
      yield values.subarray(0, count);
    }
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

async function readHeader(file: FileHandle, path: string): Promise<Map<string, SafetensorsTensor>> {
  const malformed = (reason: string) => new CheckpointError(path, `is not a valid safetensors file: ${reason}`);
  const { size } = await file.stat();
  if (size < 8) throw malformed("it is shorter than its header");
  const prefix = Buffer.alloc(8);
  await readFully(file, path, prefix, 0);
  const headerBytes = Number(prefix.readBigUInt64LE());
  if (headerBytes > MAX_HEADER_BYTES) throw malformed(`its header claims ${headerBytes} bytes`);
  if (8 + headerBytes > size) throw malformed("it is truncated within the header");
  const raw = new Uint8Array(headerBytes);
  await readFully(file, path, raw, 8);

  let json: unknown;
  try {
    json = JSON.parse(new TextDecoder("utf-8", { fatal: true }).decode(raw));
  } catch (error) {
    throw new CheckpointError(path, "is not a valid safetensors file: its header is not JSON", { cause: error });
  }
  const header = Header.safeParse(json);
  if (!header.success) throw malformed("its header is not a JSON object");

  const tensors = new Map<string, SafetensorsTensor>();
  for (const [name, value] of Object.entries(header.data)) {
    if (name === "__metadata__") continue;
    const entry = HeaderEntry.safeParse(value);
    if (!entry.success) throw malformed(`the header's entry '${name}' is malformed`);
    const { dtype, shape, data_offsets } = entry.data;
    const [begin, end] = data_offsets;
    const count = shape.reduce((product, length) => product * length, 1);
    if (end < begin || (isDtype(dtype) && count * DTYPE_BYTES[dtype] !== end - begin)) {
      throw malformed(`tensor '${name}' has bytes ${begin}..${end}, which do not fit its shape [${shape}] of ${dtype}`);
    }
    tensors.set(name, { dtype, shape, start: 8 + headerBytes + begin, bytes: end - begin });
  }
  checkCoverage(path, tensors, 8 + headerBytes, size);
  return tensors;
}

/** The tensors must fill the rest of the file without holes, overlaps or trailing bytes, as the format demands. */
function checkCoverage(path: string, tensors: Map<string, SafetensorsTensor>, start: number, size: number): void {
  const malformed = (reason: string) => new CheckpointError(path, `is not a valid safetensors file: ${reason}`);
  let position = start;
  for (const [name, tensor] of [...tensors].sort(([, a], [, b]) => a.start - b.start || a.bytes - b.bytes)) {
    if (tensor.start !== position) throw malformed(`tensor '${name}' overlaps another or leaves a hole before it`);
    position += tensor.bytes;
  }
  if (position > size) throw new CheckpointError(path, `is truncated: ${size} of ${position} bytes`);
  if (position < size) throw malformed(`${size - position} bytes follow the last tensor`);
}

function isDtype(dtype: string): dtype is Dtype {
  return Object.hasOwn(DTYPE_BYTES, dtype);
}

/** Widens little-endian values to float32, as many as `out` holds. */
function widen(dtype: Dtype, raw: Uint8Array, out: Float32Array): void {
  switch (dtype) {
    case "F32":
      out.set(new Float32Array(raw.buffer, raw.byteOffset, out.length));
      return;
    case "F16":
      out.set(new Float16Array(raw.buffer, raw.byteOffset, out.length));
      return;
    case "BF16":
      bfloat16ToFloat32(new Uint16Array(raw.buffer, raw.byteOffset, out.length), out);
      return;
  }
}
