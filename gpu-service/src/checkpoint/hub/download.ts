import { createHash } from "node:crypto";
import { mkdir, open, rename, rm, stat } from "node:fs/promises";
import { dirname, join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { CheckpointError, isErrno } from "../checkpoint-error.ts";
import { HubError, type HubFile, type HubModel, type HubOptions, streamFile } from "./hub-client.ts";

const MAX_FAILURES = 5;

export interface DownloadOptions extends HubOptions {
  /** Pause before the first retry, milliseconds; doubles with every further one. */
  retryDelayMs?: number;
  /** Called with the number of bytes of this file that are there. */
  onBytes?: (bytes: number) => void;
}

/**
 * Downloads a file into `dir` and returns its path. Bytes that an earlier run left in `….part` are kept; a broken connection
 * is taken up again where it broke. The file gets its name only once its checksum is right.
 * @throws CheckpointError when the checksum differs; HubError after several failures in a row without progress.
 */
export async function downloadHubFile(
  model: HubModel,
  file: HubFile,
  dir: string,
  options: DownloadOptions = {},
): Promise<string> {
  const target = join(dir, file.path);
  // Named after its contents: the rest of another version must never be appended.
  const part = `${target}.${file.checksum.hex.slice(0, 12)}.part`;
  await mkdir(dirname(target), { recursive: true });
  if ((await sizeOf(target)) === file.bytes && (await checksumOf(target, file)) === file.checksum.hex) {
    options.onBytes?.(file.bytes);
    return target;
  }
  for (let failures = 0; ; ) {
    const before = await sizeOf(part);
    try {
      await append(model, file, part, before, options);
      break;
    } catch (error) {
      if (!(error instanceof HubError && error.retryable)) throw error;
      failures = (await sizeOf(part)) > before ? 0 : failures + 1;
      if (failures >= MAX_FAILURES) throw error;
      const pause = (options.retryDelayMs ?? 1000) * 2 ** failures;
      await sleep(pause, undefined, options.signal ? { signal: options.signal } : {});
    }
  }
  if ((await checksumOf(part, file)) !== file.checksum.hex) {
    // Resuming from wrong bytes can never succeed.
    await rm(part, { force: true });
    throw new CheckpointError(file.path, `was altered on the way: its checksum differs from the one in ${model.repo}`);
  }
  await rename(part, target);
  return target;
}

async function append(model: HubModel, file: HubFile, part: string, from: number, options: DownloadOptions) {
  let size = from;
  if (size > file.bytes) {
    await rm(part);
    size = 0;
  }
  options.onBytes?.(size);
  const output = await open(part, "a");
  try {
    if (size === file.bytes) return;
    for await (const chunk of streamFile(model, file, size, options)) {
      size += chunk.length;
      if (size > file.bytes) throw new CheckpointError(file.path, "is longer than the hub says");
      await output.appendFile(chunk);
      options.onBytes?.(size);
    }
  } finally {
    await output.close();
  }
  if (size < file.bytes) throw new HubError(file.path, "the connection ended early", { retryable: true });
}

async function checksumOf(path: string, file: HubFile): Promise<string> {
  const git = file.checksum.algorithm === "git";
  const hash = createHash(git ? "sha1" : "sha256");
  if (git) hash.update(`blob ${file.bytes}\0`);
  const input = await open(path);
  try {
    for await (const chunk of input.createReadStream({ autoClose: false })) hash.update(chunk);
  } finally {
    await input.close();
  }
  return hash.digest("hex");
}

async function sizeOf(path: string): Promise<number> {
  try {
    return (await stat(path)).size;
  } catch (error) {
    if (isErrno(error, "ENOENT")) return 0;
    throw error;
  }
}
