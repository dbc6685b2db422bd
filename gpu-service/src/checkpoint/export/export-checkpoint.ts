import { randomBytes } from "node:crypto";
import { copyFile, type FileHandle, mkdir, open, readdir, rename, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { CheckpointError, isErrno, writingTo } from "../checkpoint-error.ts";
import { huggingFaceTensors } from "../huggingface/tensor-names.ts";
import { type Checkpoint, openCheckpoint } from "../open-checkpoint.ts";
import { readTensorChunks } from "../read-tensor.ts";
import { type ExportDtype, encodeValues } from "./dtype.ts";
import { exportCard } from "./export-card.ts";
import { planShards, type Shard, safetensorsHeader, shardIndex } from "./shards.ts";
import { generationConfig, transformersConfig } from "./transformers-config.ts";

/** The hub's own tools split at this size. */
export const DEFAULT_SHARD_BYTES = 5_000_000_000;

export interface ExportOptions {
  /** How values are written; fp32 keeps every value as it is. Default fp32. */
  dtype?: ExportDtype;
  /** Largest number of bytes of values in one file. Default 5 GB. */
  shardBytes?: number;
  /** Called as tensors are written, with the number of values so far and in all. */
  onProgress?: (done: number, total: number) => void;
  /** Aborting removes what was written; the export rejects with the signal's reason. */
  signal?: AbortSignal;
}

/** What an export wrote. */
export interface ExportResult {
  parameters: number;
  /** Names of the safetensors files. */
  files: string[];
}

/**
 * Writes a nested checkpoint as a Hugging Face folder that transformers loads: `config.json`, `generation_config.json`,
 * safetensors (with an index when there are several), the tokenizer and a model card. Quantised weights are dequantised.
 * Memory does not grow with the model. The folder appears when it is complete.
 * @param outDir must be missing or empty.
 * @throws CheckpointError when the checkpoint or the target cannot be used, or a value does not fit `dtype`.
 */
export async function exportCheckpoint(
  dir: string,
  outDir: string,
  options: ExportOptions = {},
): Promise<ExportResult> {
  const { signal } = options;
  signal?.throwIfAborted();
  await requireEmptyTarget(outDir);
  const checkpoint = await openCheckpoint(dir);
  const target = resolve(outDir);
  const temporary = join(dirname(target), `.${basename(target)}.partial-${randomBytes(4).toString("hex")}`);
  await writingTo(outDir, () => mkdir(temporary, { recursive: true }));
  try {
    const result = await writingTo(outDir, () => write(checkpoint, temporary, options));
    signal?.throwIfAborted();
    await requireEmptyTarget(outDir);
    await rename(temporary, target);
    return result;
  } catch (error) {
    await rm(temporary, { recursive: true, force: true });
    if (error instanceof RangeError) throw new CheckpointError(dir, error.message, { cause: error });
    throw error;
  }
}

async function write(checkpoint: Checkpoint, dir: string, options: ExportOptions): Promise<ExportResult> {
  const { manifest } = checkpoint;
  const { dtype = "fp32", shardBytes = DEFAULT_SHARD_BYTES, onProgress, signal } = options;
  const tensors = huggingFaceTensors(manifest.architecture);
  const shards = planShards(tensors, dtype, shardBytes);
  const parameters = tensors.reduce((sum, { length }) => sum + length, 0);
  let done = 0;
  for (const shard of shards) {
    await writeShard(checkpoint, join(dir, shard.file), shard, dtype, (values) => {
      signal?.throwIfAborted();
      done += values;
      onProgress?.(done, parameters);
    });
  }
  if (shards.length > 1) await writeFile(join(dir, "model.safetensors.index.json"), shardIndex(shards, dtype));
  await writeFile(join(dir, "config.json"), transformersConfig(manifest, dtype));
  await writeFile(join(dir, "generation_config.json"), generationConfig(manifest));
  await writeFile(join(dir, "README.md"), exportCard(manifest, dtype));
  for (const { path } of manifest.files) {
    if (/^tokenizer[a-z_]*\.json$/.test(path)) await copyFile(join(checkpoint.dir, path), join(dir, path));
  }
  return { parameters, files: shards.map(({ file }) => file) };
}

/** Packed tensors lie in a file one behind the other, so ours can be written through without being taken apart. */
async function writeShard(
  checkpoint: Checkpoint,
  path: string,
  { tensors }: Shard,
  dtype: ExportDtype,
  onWritten: (values: number) => void,
): Promise<void> {
  const file = await open(path, "wx");
  try {
    await append(file, safetensorsHeader(tensors, dtype));
    for (const source of new Set(tensors.map((tensor) => tensor.source))) {
      for await (const chunk of readTensorChunks(checkpoint, source)) {
        await append(file, encodeChunk(source, chunk, dtype));
        onWritten(chunk.length);
      }
    }
    await file.sync();
  } finally {
    await file.close();
  }
}

function encodeChunk(name: string, chunk: Float32Array, dtype: ExportDtype): Uint8Array {
  try {
    return encodeValues(chunk, dtype);
  } catch (error) {
    if (error instanceof RangeError) throw new RangeError(`tensor '${name}': ${error.message}`, { cause: error });
    throw error;
  }
}

async function append(file: FileHandle, bytes: Uint8Array): Promise<void> {
  let done = 0;
  while (done < bytes.length) done += (await file.write(bytes, done)).bytesWritten;
}

async function requireEmptyTarget(dir: string): Promise<void> {
  const entries = await readdir(dir).catch((error: unknown) => {
    if (isErrno(error, "ENOENT")) return [];
    throw new CheckpointError(dir, isErrno(error, "ENOTDIR") ? "is not a folder" : `cannot be read (${error})`);
  });
  if (entries.length > 0) throw new CheckpointError(dir, "is not empty; export to another folder");
}
