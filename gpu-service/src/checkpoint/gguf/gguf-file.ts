import { type FileHandle, open } from "node:fs/promises";
import { GGMLQuantizationType, gguf } from "@huggingface/gguf";
import { CheckpointError } from "../checkpoint-error.ts";
import { rowsPerChunk } from "../model-source.ts";
import { readFully } from "../read-fully.ts";
import { BLOCK_FORMATS, type BlockFormat } from "./block-formats.ts";

export interface GgufTensor {
  /** Outermost dimension first, as everywhere but in GGUF. */
  shape: number[];
  /** GGUF's number of the block format. */
  type: number;
  /** Position of the first byte in the file. */
  start: number;
}

/** A GGUF file: metadata and tensor list checked, tensors decoded in chunks of rows. */
export class GgufFile {
  readonly path: string;
  readonly metadata: Readonly<Record<string, unknown>>;
  readonly tensors: ReadonlyMap<string, GgufTensor>;
  readonly #file: FileHandle;
  readonly #size: number;

  private constructor(
    path: string,
    file: FileHandle,
    size: number,
    metadata: Record<string, unknown>,
    tensors: Map<string, GgufTensor>,
  ) {
    this.path = path;
    this.#file = file;
    this.#size = size;
    this.metadata = metadata;
    this.tensors = tensors;
  }

  /** @throws CheckpointError when the file cannot be read or is not GGUF. */
  static async open(path: string): Promise<GgufFile> {
    let file: FileHandle;
    try {
      file = await open(path);
    } catch (error) {
      throw new CheckpointError(path, `cannot be read (${error instanceof Error ? error.message : error})`);
    }
    try {
      const { size } = await file.stat();
      const header = await readHeader(path);
      const tensors = new Map<string, GgufTensor>();
      for (const info of header.tensorInfos) {
        if (tensors.has(info.name)) throw new CheckpointError(path, `lists tensor '${info.name}' twice`);
        tensors.set(info.name, {
          shape: info.shape.map(Number).reverse(),
          type: info.dtype,
          start: Number(header.tensorDataOffset + info.offset),
        });
      }
      return new GgufFile(path, file, size, { ...header.metadata }, tensors);
    } catch (error) {
      await file.close();
      throw error;
    }
  }

  /**
   * Checks that a tensor exists, has this shape and a format that can be decoded, and lies inside the file.
   * @throws CheckpointError that names the tensor.
   */
  requireTensor(name: string, shape: readonly number[]): { tensor: GgufTensor; format: BlockFormat } {
    const bad = (reason: string) => new CheckpointError(this.path, `tensor '${name}' ${reason}`);
    const tensor = this.tensors.get(name);
    if (!tensor) throw bad("is missing");
    if (tensor.shape.join() !== shape.join()) {
      throw bad(`has shape [${tensor.shape}], but the metadata needs [${shape}]`);
    }
    const format = BLOCK_FORMATS.get(tensor.type);
    if (!format) {
      const supported = [...BLOCK_FORMATS.values()].map((known) => known.name).join(", ");
      throw bad(`has type ${GGMLQuantizationType[tensor.type] ?? tensor.type}; supported are ${supported}`);
    }
    if ((shape.at(-1) ?? 0) % format.values !== 0) throw bad(`has rows that are no whole ${format.name} blocks`);
    const values = shape.reduce((product, length) => product * length, 1);
    const end = tensor.start + (values / format.values) * format.bytes;
    if (end > this.#size) {
      throw new CheckpointError(this.path, `is truncated: tensor '${name}' ends at byte ${end} of ${this.#size}`);
    }
    return { tensor, format };
  }

  /**
   * A tensor's values in chunks of whole rows (a vector is one row), a multiple of `unit` rows each. The chunk's memory is
   * used again for the next one.
   * @throws CheckpointError as `requireTensor` does.
   */
  async *read(name: string, shape: readonly number[], unit = 1): AsyncGenerator<Float32Array> {
    const { tensor, format } = this.requireTensor(name, shape);
    const rowLength = shape.at(-1) ?? 1;
    const total = shape.reduce((product, length) => product * length, 1);
    const capacity = Math.min(total, rowsPerChunk(rowLength, unit) * rowLength);
    const raw = new Uint8Array((capacity / format.values) * format.bytes);
    const values = new Float32Array(capacity);
    for (let done = 0; done < total; done += capacity) {
      const count = Math.min(capacity, total - done);
      const bytes = raw.subarray(0, (count / format.values) * format.bytes);
      await readFully(this.#file, this.path, bytes, tensor.start + (done / format.values) * format.bytes);
      const chunk = values.subarray(0, count);
      format.decode(bytes, chunk);
      yield chunk;
    }
  }

  close(): Promise<void> {
    return this.#file.close();
  }
}

async function readHeader(path: string) {
  try {
    const header = await gguf(path, { allowLocalFile: true });
    if (header.littleEndian) return header;
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new CheckpointError(path, `is not a valid GGUF file: ${reason}`, { cause: error });
  }
  throw new CheckpointError(path, "is a big-endian GGUF file, which is not supported");
}
