import { readFile } from "node:fs/promises";
import { join } from "node:path";
import {
  blockLayout,
  type DepthProfile,
  type ExitSet,
  type Manifest,
  tensorShapes,
  type WeightFormat,
} from "@fathom/shared";
import { tensorFormat } from "./check-tensors.ts";
import { CheckpointError } from "./checkpoint-error.ts";
import { type CheckpointHeader, CheckpointWriter, EncodedTensor } from "./checkpoint-writer.ts";
import type { TensorBytes } from "./dequantize.ts";
import { checkExits } from "./import-checkpoint.ts";
import type { KeptMatrices } from "./kept-tensors.ts";
import { modelCard } from "./model-card.ts";
import type { Checkpoint } from "./open-checkpoint.ts";
import { readTensorBytes, readTensorChunks } from "./read-tensor.ts";
import { weightFiles } from "./weight-files.ts";
import { weightPlan } from "./weight-plan.ts";

export interface RequantizeOptions {
  /** Exits of the new checkpoint; default: the old one's. Profile entries of other depths are dropped. */
  exits?: readonly number[];
  /** Replace an existing checkpoint. */
  force?: boolean;
  /** int4 matrices, all or those named, carry an offset per block (see `offsetColumns`). Default: as `weightPlan` says. */
  offsets?: boolean | ReadonlySet<string>;
  /** Stored byte for byte as their checkpoint stores them, offsets or not (see `unchangedMatrices`). */
  keep?: KeptMatrices;
  /** Encodes a tensor in the new format in a way of its own; undefined leaves it to rounding. */
  encode?: (name: string, quantization: Manifest["quantization"]) => Promise<TensorBytes | undefined>;
  /** Said in the provenance. */
  note?: string;
  /** Called after each tensor with the number of values written so far and in all. */
  onProgress?: (done: number, total: number) => void;
  /** Aborting removes what was written. */
  signal?: AbortSignal;
}

/**
 * Writes a checkpoint anew with its matrices in another format (see `weightPlan`), in chunks of rows, so that memory does not
 * grow with the model. Everything else is kept but the thresholds and their guarantee, which hold for the very weights that
 * they were calibrated on; the provenance notes the change, because the profile was measured on the weights as they were.
 * @throws CheckpointError when the target or the exits cannot be used or a value cannot be stored.
 */
export async function requantize(
  checkpoint: Checkpoint,
  out: string,
  weights: WeightFormat,
  options: RequantizeOptions = {},
): Promise<Manifest> {
  const { onProgress, signal, encode, keep } = options;
  signal?.throwIfAborted();
  const header = newHeader(checkpoint, weights, options);
  const shapes = [...tensorShapes(header.architecture, header.exit_heads)].map(
    ([name, shape]) => [name, product(shape)] as const,
  );
  const total = shapes.reduce((sum, [, values]) => sum + values, 0);
  const writer = await CheckpointWriter.create(out, header, { force: options.force ?? false });
  try {
    let done = 0;
    for (const [name, values] of shapes) {
      const encoded = keep?.names.has(name)
        ? await readTensorBytes(keep.checkpoint, name)
        : await encode?.(name, header.quantization);
      signal?.throwIfAborted();
      const stored = encoded ? new EncodedTensor(encoded) : abortable(readTensorChunks(checkpoint, name), signal);
      await writer.writeTensor(name, stored);
      done += values;
      onProgress?.(done, total);
    }
    await copyFiles(checkpoint, writer, header);
    signal?.throwIfAborted();
    return await writer.finish();
  } catch (error) {
    await writer.abort();
    if (error instanceof RangeError) throw new CheckpointError(checkpoint.dir, error.message, { cause: error });
    throw error;
  }
}

function newHeader(
  { dir, manifest }: Checkpoint,
  weights: WeightFormat,
  { exits: wanted, offsets, keep, note: remark }: RequantizeOptions,
): CheckpointHeader {
  const { name, architecture, tokenizer, provenance, quantization, thresholds, profile } = manifest;
  const exits = wanted === undefined ? manifest.exits : checkExits(dir, wanted, architecture.layers);
  const exitHeads = (manifest.exit_heads ?? []).filter((depth) => exits.includes(depth));
  const measured = profile ? "; the depth profile was measured before" : "";
  const dropped = thresholds ? "; thresholds were dropped, calibrate anew" : "";
  const note = `re-encoded from ${quantization.layers} to ${weights}${remark ? ` ${remark}` : ""}${measured}${dropped}`;
  const keptProfile = profile && profileAt(profile, exits);
  return {
    name,
    architecture,
    exits,
    ...(exitHeads.length > 0 ? { exit_heads: exitHeads } : {}),
    quantization: withOffsets(manifest, weightPlan(weights), offsets, keep),
    tokenizer,
    ...(keptProfile ? { profile: keptProfile } : {}),
    provenance: {
      ...provenance,
      created: new Date().toISOString(),
      notes: provenance.notes === undefined ? note : `${provenance.notes}; ${note}`,
    },
  };
}

/** `plan` with the offsets that kept matrices have and those that the others are to have. */
function withOffsets(
  { tensors }: Manifest,
  plan: Manifest["quantization"],
  wanted: RequantizeOptions["offsets"] = true,
  keep?: KeptMatrices,
): Manifest["quantization"] {
  if (plan.offsets === undefined) return plan;
  const matrices = Object.keys(tensors).filter(
    (name) => tensorFormat(plan, name, tensors[name]?.shape ?? []) === "int4",
  );
  const offsets = matrices.filter((name) => {
    if (keep?.names.has(name)) return blockLayout(keep.checkpoint.manifest.quantization, name).offsets === true;
    return typeof wanted === "boolean" ? wanted : wanted.has(name);
  });
  if (offsets.length > 0 && offsets.length < matrices.length) return { ...plan, offsets };
  return { ...plan, offsets: offsets.length > 0 };
}

function profileAt(profile: DepthProfile, exits: ExitSet): DepthProfile | undefined {
  const kept = profile.exits.filter(({ depth }) => exits.includes(depth));
  return kept.length === 0 ? undefined : { ...profile, exits: kept };
}

/** Every file beside the weights. A model card that we wrote ourselves is written anew: it states the format. */
async function copyFiles({ dir, manifest }: Checkpoint, writer: CheckpointWriter, header: CheckpointHeader) {
  const weights = weightFiles(manifest);
  for (const { path } of manifest.files) {
    if (weights.has(path)) continue;
    const contents = await readFile(join(dir, path));
    const ours = path === "README.md" && contents.toString("utf8") === modelCard(manifest);
    await writer.writeFile(path, ours ? modelCard(header) : contents);
  }
}

async function* abortable(values: AsyncIterable<Float32Array>, signal: AbortSignal | undefined) {
  for await (const chunk of values) {
    signal?.throwIfAborted();
    yield chunk;
  }
}

function product(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}
