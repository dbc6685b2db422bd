import { open } from "node:fs/promises";
import { join } from "node:path";
import { type ByteRange, blockLayout, type StoredTensor } from "@fathom/shared";
import { CheckpointError } from "./checkpoint-error.ts";
import { dequantize, type TensorBytes } from "./dequantize.ts";
import { rowsPerChunk } from "./model-source.ts";
import { type Checkpoint, MANIFEST_FILE } from "./open-checkpoint.ts";
import { readFully } from "./read-fully.ts";

/**
 * Reads one tensor as float32, row-major, whatever format it is stored in.
 * @throws CheckpointError when the checkpoint has no such tensor or its file has become shorter.
 */
export async function readTensor(checkpoint: Checkpoint, name: string): Promise<Float32Array> {
  const tensor = requireTensor(checkpoint, name);
  const bytes = await readTensorBytes(checkpoint, name);
  return dequantize(tensor.format, tensor.shape, bytes, blockLayout(checkpoint.manifest.quantization, name));
}

/** Reads one tensor's bytes as they are stored. @throws CheckpointError as `readTensor` does. */
export async function readTensorBytes(checkpoint: Checkpoint, name: string): Promise<TensorBytes> {
  const tensor = requireTensor(checkpoint, name);
  return {
    data: await readRange(checkpoint.dir, tensor.data),
    scales: tensor.scales && (await readRange(checkpoint.dir, tensor.scales)),
    zeroPoints: tensor.zero_points && (await readRange(checkpoint.dir, tensor.zero_points)),
  };
}

/**
 * Reads one tensor as `readTensor` does, in chunks of whole rows (a vector is one row), so that memory does not grow with it.
 * @throws CheckpointError as `readTensor` does.
 */
export async function* readTensorChunks(checkpoint: Checkpoint, name: string): AsyncGenerator<Float32Array> {
  const { format, shape, data, scales, zero_points } = requireTensor(checkpoint, name);
  const layout = blockLayout(checkpoint.manifest.quantization, name);
  const rowLength = shape.at(-1) ?? 1;
  const rows = shape.length === 1 ? 1 : (shape[0] ?? 1);
  const step = rowsPerChunk(rowLength);
  for (let first = 0; first < rows; first += step) {
    const count = Math.min(step, rows - first);
    const part = (range: ByteRange) => readRange(checkpoint.dir, rowsOf(range, first, count, rows));
    const bytes: TensorBytes = {
      data: await part(data),
      scales: scales && (await part(scales)),
      zeroPoints: zero_points && (await part(zero_points)),
    };
    const chunkShape = shape.length === 1 ? shape : [count, rowLength];
    yield dequantize(format, chunkShape, bytes, layout);
  }
}

/** Every format stores a row's bytes together and gives all rows the same number of them. */
function rowsOf(range: ByteRange, first: number, count: number, rows: number): ByteRange {
  const rowBytes = range.bytes / rows;
  return { file: range.file, offset: range.offset + first * rowBytes, bytes: count * rowBytes };
}

function requireTensor(checkpoint: Checkpoint, name: string): StoredTensor {
  const tensor = checkpoint.manifest.tensors[name];
  if (tensor) return tensor;
  throw new CheckpointError(join(checkpoint.dir, MANIFEST_FILE), `tensor '${name}' is missing`);
}

async function readRange(dir: string, range: ByteRange): Promise<Uint8Array> {
  const path = join(dir, range.file);
  const bytes = new Uint8Array(range.bytes);
  const file = await open(path);
  try {
    await readFully(file, path, bytes, range.offset);
  } finally {
    await file.close();
  }
  return bytes;
}
