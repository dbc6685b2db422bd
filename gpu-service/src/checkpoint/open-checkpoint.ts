import { readFile, stat } from "node:fs/promises";
import { join } from "node:path";
import { Manifest } from "@fathom/shared";
import { checkTensors } from "./check-tensors.ts";
import { CheckpointError, isErrno } from "./checkpoint-error.ts";
import { hashFile } from "./hash-file.ts";

export const MANIFEST_FILE = "manifest.json";
const MAX_MANIFEST_BYTES = 64 * 1024 * 1024;

/** A nested checkpoint whose manifest, tensors and files have been checked. */
export interface Checkpoint {
  dir: string;
  manifest: Manifest;
}

export interface OpenOptions {
  /** Compare every file's SHA-256 with the manifest. Sizes are compared always. Default true. */
  verify?: boolean;
}

/**
 * Opens a checkpoint folder and proves that it is whole: manifest well-formed, every tensor of the architecture present with
 * the right shape inside its file, every file of the right size and, with `verify`, the right SHA-256.
 * @throws CheckpointError that names the file and the reason.
 */
export async function openCheckpoint(dir: string, options: OpenOptions = {}): Promise<Checkpoint> {
  const manifest = await readManifest(dir);
  checkTensors(join(dir, MANIFEST_FILE), manifest);
  for (const file of manifest.files) {
    const path = join(dir, file.path);
    const size = await fileSize(path);
    if (size < file.bytes) throw new CheckpointError(path, `is truncated: ${size} of ${file.bytes} bytes`);
    if (size > file.bytes) throw new CheckpointError(path, `has ${size} bytes, but the manifest says ${file.bytes}`);
  }
  if (options.verify ?? true) {
    for (const file of manifest.files) {
      const path = join(dir, file.path);
      if ((await hashFile(path)) !== file.sha256) {
        throw new CheckpointError(path, "was altered: its SHA-256 differs from the manifest's");
      }
    }
  }
  return { dir, manifest };
}

async function readManifest(dir: string): Promise<Manifest> {
  const path = join(dir, MANIFEST_FILE);
  let text: string;
  try {
    if (!(await stat(dir)).isDirectory()) throw new CheckpointError(dir, "is not a folder");
    if ((await stat(path)).size > MAX_MANIFEST_BYTES) throw new CheckpointError(path, "is too large for a manifest");
    text = await readFile(path, "utf8");
  } catch (error) {
    if (isErrno(error, "ENOENT")) throw await explainMissing(dir, path);
    if (error instanceof CheckpointError) throw error;
    throw new CheckpointError(path, `cannot be read (${error instanceof Error ? error.message : error})`);
  }
  let json: unknown;
  try {
    json = JSON.parse(text);
  } catch (error) {
    throw new CheckpointError(path, "is malformed: not JSON", { cause: error });
  }
  const type = architectureType(json);
  if (type !== undefined && type !== "llama") {
    throw new CheckpointError(path, `the architecture is '${type}'; only 'llama' is supported`);
  }
  const result = Manifest.safeParse(json);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const where = issue && issue.path.length > 0 ? `'${issue.path.join(".")}': ` : "";
  throw new CheckpointError(path, `is malformed: ${where}${issue?.message ?? "does not fit the schema"}`);
}

async function explainMissing(dir: string, manifestPath: string): Promise<CheckpointError> {
  if (!(await exists(dir))) return new CheckpointError(dir, "there is no such folder");
  const hint = (await exists(join(dir, "config.json")))
    ? "; the folder looks like a Hugging Face model: run `fathom import` on it first"
    : "";
  return new CheckpointError(manifestPath, `is missing${hint}`);
}

function architectureType(json: unknown): string | undefined {
  if (typeof json !== "object" || json === null || !("architecture" in json)) return undefined;
  const { architecture } = json;
  if (typeof architecture !== "object" || architecture === null || !("type" in architecture)) return undefined;
  return typeof architecture.type === "string" ? architecture.type : undefined;
}

async function fileSize(path: string): Promise<number> {
  try {
    const info = await stat(path);
    if (!info.isFile()) throw new CheckpointError(path, "is not a regular file");
    return info.size;
  } catch (error) {
    if (error instanceof CheckpointError) throw error;
    const reason = isErrno(error, "ENOENT") ? "is missing" : `cannot be read (${error})`;
    throw new CheckpointError(path, reason, { cause: error });
  }
}

async function exists(path: string): Promise<boolean> {
  try {
    await stat(path);
    return true;
  } catch {
    return false;
  }
}
