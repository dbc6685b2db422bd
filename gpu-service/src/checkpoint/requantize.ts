import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { type Manifest, tensorShapes, type WeightFormat } from "@fathom/shared";
import { CheckpointWriter } from "./checkpoint-writer.ts";
import { modelCard } from "./model-card.ts";
import type { Checkpoint } from "./open-checkpoint.ts";
import { readTensor } from "./read-tensor.ts";
import { weightPlan } from "./weight-plan.ts";

export interface RequantizeOptions {
  /** Replace an existing checkpoint. */
  force?: boolean;
  /** Called with the number of tensors written so far and in all. */
  onProgress?: (done: number, total: number) => void;
  /** Aborting removes what was written. */
  signal?: AbortSignal;
}

/**
 * Writes a checkpoint anew with its matrices in another format (see `weightPlan`). Thresholds and profile belong to the
 * weights they were measured on and are left out.
 * @throws CheckpointError when the target cannot be used; RangeError when a value cannot be stored.
 */
export async function requantize(
  checkpoint: Checkpoint,
  out: string,
  weights: WeightFormat,
  options: RequantizeOptions = {},
): Promise<Manifest> {
  const { name, architecture, exits, tokenizer, provenance, files } = checkpoint.manifest;
  const header = { name, architecture, exits, tokenizer, provenance, quantization: weightPlan(weights) };
  const names = [...tensorShapes(architecture).keys()];
  const writer = await CheckpointWriter.create(out, header, { force: options.force ?? false });
  try {
    for (const [done, tensor] of names.entries()) {
      options.signal?.throwIfAborted();
      await writer.writeTensor(tensor, await readTensor(checkpoint, tensor));
      options.onProgress?.(done + 1, names.length);
    }
    for (const { path } of files) {
      if (/^tokenizer[a-z_]*\.json$/.test(path))
        await writer.writeFile(path, await readFile(join(checkpoint.dir, path)));
    }
    await writer.writeFile("README.md", modelCard(header));
    return await writer.finish();
  } catch (error) {
    await writer.abort();
    throw error;
  }
}
