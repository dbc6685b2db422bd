import { stat } from "node:fs/promises";
import { basename, resolve } from "node:path";
import { ExitSet, fullDepth, type Manifest, tensorShapes, type WeightFormat } from "@fathom/shared";
import { CheckpointError } from "./checkpoint-error.ts";
import { CheckpointWriter } from "./checkpoint-writer.ts";
import { defaultExits } from "./default-exits.ts";
import { openGguf } from "./gguf/open-gguf.ts";
import { openHuggingFaceFolder } from "./huggingface/open-folder.ts";
import { modelCard } from "./model-card.ts";
import type { ModelSource } from "./model-source.ts";
import { weightPlan } from "./weight-plan.ts";

export interface ImportOptions {
  /** Ascending depths that end with the model's number of layers. Default: the quarters. */
  exits?: readonly number[];
  /** How the matrices are stored; see `weightPlan`. Default int4. */
  weights?: WeightFormat;
  /** Replace an existing checkpoint. */
  force?: boolean;
  /** The checkpoint's name; default: the source's. */
  name?: string;
  /** Where the model came from, for the provenance; default: the source's base name. */
  source?: string;
  /** Called after each tensor with the number of values imported so far and in all. */
  onProgress?: (done: number, total: number) => void;
  /** Aborting removes what was written; the import rejects with the signal's reason. */
  signal?: AbortSignal;
}

/**
 * Imports a model into a nested checkpoint, tensor by tensor and in chunks of rows, so memory does not grow with the model.
 * @param source a Hugging Face folder or a `.gguf` file.
 * @returns the manifest that was written.
 * @throws CheckpointError when the source or the target cannot be used.
 */
export async function importCheckpoint(source: string, outDir: string, options: ImportOptions = {}): Promise<Manifest> {
  options.signal?.throwIfAborted();
  const model = await openSource(source);
  try {
    return await write(model, source, outDir, options);
  } finally {
    await model.close();
  }
}

async function openSource(source: string): Promise<ModelSource> {
  const info = await stat(source).catch(() => undefined);
  if (!info) throw new CheckpointError(source, "there is no such file or folder");
  if (info.isDirectory()) return openHuggingFaceFolder(source);
  if (source.toLowerCase().endsWith(".gguf")) return openGguf(source);
  throw new CheckpointError(source, "is neither a Hugging Face folder nor a .gguf file");
}

async function write(model: ModelSource, source: string, outDir: string, options: ImportOptions): Promise<Manifest> {
  const { architecture } = model;
  const name = checkpointName(options.name ?? model.name ?? basename(source));
  const header = {
    name,
    architecture,
    exits: checkExits(source, options.exits ?? defaultExits(architecture.layers), architecture.layers),
    quantization: weightPlan(options.weights ?? "int4"),
    tokenizer: model.tokenizer,
    provenance: provenance(model, source, options),
  };
  const shapes = [...tensorShapes(architecture)].map(([tensor, shape]) => [tensor, product(shape)] as const);
  const total = shapes.reduce((sum, [, values]) => sum + values, 0);
  const writer = await CheckpointWriter.create(outDir, header, { force: options.force ?? false });
  try {
    let done = 0;
    for (const [tensor, values] of shapes) {
      await writer.writeTensor(tensor, abortable(model.tensor(tensor), options.signal));
      done += values;
      options.onProgress?.(done, total);
    }
    for (const [path, contents] of model.files) await writer.writeFile(path, contents);
    await writer.writeFile("README.md", modelCard(header));
    options.signal?.throwIfAborted();
    return await writer.finish();
  } catch (error) {
    await writer.abort();
    if (error instanceof RangeError) throw new CheckpointError(source, error.message, { cause: error });
    throw error;
  }
}

async function* abortable(values: AsyncIterable<Float32Array>, signal: AbortSignal | undefined) {
  for await (const chunk of values) {
    signal?.throwIfAborted();
    yield chunk;
  }
}

function provenance(model: ModelSource, source: string, options: ImportOptions): Manifest["provenance"] {
  const { license } = model;
  return {
    // The base name only: a checkpoint that is passed on should not tell where its maker keeps files.
    source: options.source ?? basename(resolve(source)),
    created: new Date().toISOString(),
    ...(license === undefined ? {} : { license }),
  };
}

/** @throws CheckpointError when the exits are not ascending depths that end with the number of layers. */
export function checkExits(source: string, exits: readonly number[], layers: number): ExitSet {
  const result = ExitSet.safeParse(exits);
  if (!result.success)
    throw new CheckpointError(source, `exits ${exits.join(",")}: ${result.error.issues[0]?.message}`);
  if (fullDepth(result.data) !== layers) {
    throw new CheckpointError(source, `exits ${exits.join(",")}: the last one must be the full depth, ${layers}`);
  }
  return result.data;
}

/** The manifest's names hold letters, digits, dots, dashes and underscores only. */
function checkpointName(name: string): string {
  const clean = name
    .replace(/\.gguf$/i, "")
    .replace(/[^A-Za-z0-9._-]+/g, "-")
    .replace(/^-+|-+$/g, "");
  return clean.slice(0, 128) || "model";
}

function product(shape: readonly number[]): number {
  return shape.reduce((a, b) => a * b, 1);
}
