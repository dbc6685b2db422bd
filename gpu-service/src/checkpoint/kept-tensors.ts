import { blockLayout, type Manifest } from "@fathom/shared";
import { tensorFormat } from "./check-tensors.ts";
import type { Checkpoint } from "./open-checkpoint.ts";
import { readTensorChunks } from "./read-tensor.ts";
import { DEFAULT_BLOCK_SIZE } from "./stored-bytes.ts";

/** Matrices whose stored bytes another checkpoint takes over. */
export interface KeptMatrices {
  checkpoint: Checkpoint;
  names: ReadonlySet<string>;
}

/**
 * The matrices that `source` stores as `plan` asks and whose values `checkpoint` has to the last bit, as a checkpoint
 * has that was trained from it and left them alone: their bytes can be taken over, where encoding anew might round again.
 */
export async function unchangedMatrices(
  checkpoint: Checkpoint,
  source: Checkpoint,
  plan: Manifest["quantization"],
): Promise<KeptMatrices> {
  const names = new Set<string>();
  const blockSize = ({ block_size = DEFAULT_BLOCK_SIZE }: { block_size?: number | undefined }) => block_size;
  for (const [name, { shape }] of Object.entries(checkpoint.manifest.tensors)) {
    const stored = source.manifest.tensors[name];
    if (shape.length !== 2 || stored?.shape.join() !== shape.join()) continue;
    if (stored.format !== tensorFormat(plan, name, shape)) continue;
    if (blockSize(blockLayout(source.manifest.quantization, name)) !== blockSize(plan)) continue;
    if (await sameValues(checkpoint, source, name)) names.add(name);
  }
  return { checkpoint: source, names };
}

async function sameValues(a: Checkpoint, b: Checkpoint, name: string): Promise<boolean> {
  const others = readTensorChunks(b, name);
  for await (const chunk of readTensorChunks(a, name)) {
    const other = (await others.next()).value;
    if (!other || Buffer.compare(bytes(chunk), bytes(other)) !== 0) return false;
  }
  return true;
}

function bytes({ buffer, byteOffset, byteLength }: Float32Array): Buffer {
  return Buffer.from(buffer, byteOffset, byteLength);
}
