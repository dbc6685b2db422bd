import { createHash } from "node:crypto";
import { readdir, readFile } from "node:fs/promises";
import { createRequire } from "node:module";
import { cpus } from "node:os";
import { join } from "node:path";

/** Where a run was made. */
export interface Environment {
  version: string;
  /** SHA-256 over the sources that decide the numbers: `train/` and `graph/`. */
  code_sha256: string;
  node: string;
  onnxruntime: string;
  platform: string;
  cpu: string;
  cores: number;
}

export async function describeEnvironment(): Promise<Environment> {
  const require = createRequire(import.meta.url);
  const own = require("../../package.json") as { version: string };
  const runtime = require("onnxruntime-node/package.json") as { version: string };
  return {
    version: own.version,
    code_sha256: await hashSources(["../graph/", "./"]),
    node: process.version,
    onnxruntime: runtime.version,
    platform: `${process.platform}-${process.arch}`,
    cpu: cpus()[0]?.model ?? "unknown",
    cores: cpus().length,
  };
}

async function hashSources(folders: readonly string[]): Promise<string> {
  const hash = createHash("sha256");
  for (const folder of folders) {
    const path = new URL(folder, import.meta.url).pathname;
    const files = (await readdir(path, { recursive: true })).filter((f) => f.endsWith(".ts") && !f.includes("test"));
    for (const file of files.sort()) hash.update(file).update(await readFile(join(path, file)));
  }
  return hash.digest("hex");
}
