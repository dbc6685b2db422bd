import { createHash } from "node:crypto";
import type { Manifest } from "@fathom/shared";

/** Paths of the files that hold tensors. */
export function weightFiles(manifest: Manifest): Set<string> {
  const paths = new Set<string>();
  for (const { data, scales, zero_points } of Object.values(manifest.tensors)) {
    for (const range of [data, scales, zero_points]) if (range) paths.add(range.file);
  }
  return paths;
}

/** SHA-256 over the paths and hashes of the weight files: equal for the same weights, stored the same way. Lower-case hex. */
export function weightsHash(manifest: Manifest): string {
  const paths = weightFiles(manifest);
  const lines = manifest.files.filter(({ path }) => paths.has(path)).map(({ path, sha256 }) => `${sha256}  ${path}\n`);
  return createHash("sha256").update(lines.sort().join("")).digest("hex");
}
