import { open } from "node:fs/promises";
import { join } from "node:path";
import type { ByteRange } from "@fathom/shared";
import { CheckpointError } from "./checkpoint-error.ts";
import { dequantize, type TensorBytes } from "./dequantize.ts";
import { type Checkpoint, MANIFEST_FILE } from "./open-checkpoint.ts";
import { readFully } from "./read-fully.ts";

/**
 * Reads one tensor as float32, row-major, whatever format it is stored in.
 * @throws CheckpointError when the checkpoint has no such tensor or its file has become shorter.
 */
export async function readTensor(checkpoint: Checkpoint, name: string): Promise<Float32Array> {
  const tensor = requireTensor(checkpoint, name);
  const bytes = await readTensorBytes(checkpoint, name);
  return dequantize(tensor.format, tensor.shape, bytes, checkpoint.manifest.quantization);
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

function requireTensor(checkpoint: Checkpoint, name: string) {
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
