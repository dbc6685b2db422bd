import { randomBytes } from "node:crypto";
import { open, readFile, rename, rm, stat } from "node:fs/promises";
import { join } from "node:path";
import { Manifest } from "@fathom/shared";
import { CheckpointError } from "./checkpoint-error.ts";
import { type Checkpoint, MANIFEST_FILE } from "./open-checkpoint.ts";
import { weightsHash } from "./weight-files.ts";

/** What may be measured on a finished checkpoint and added to it, and how it is presented. */
export type ManifestFacts = Partial<Pick<Manifest, "thresholds" | "calibration" | "profile" | "name" | "files">>;

/**
 * Sets facts in a checkpoint's manifest, atomically: whoever opens the checkpoint meanwhile sees the old manifest or the new
 * one. Everything else in it stays, fields of later versions too. Weights and other files are untouched.
 * @throws CheckpointError when the weights are no longer those that were opened; ZodError when a fact does not fit.
 */
export async function updateManifest(checkpoint: Checkpoint, facts: ManifestFacts): Promise<void> {
  const path = join(checkpoint.dir, MANIFEST_FILE);
  const json: unknown = JSON.parse(await readFile(path, "utf8"));
  if (weightsHash(Manifest.parse(json)) !== weightsHash(checkpoint.manifest)) {
    throw new CheckpointError(path, "has other weights than when it was opened, so nothing was written");
  }
  const updated = { ...(json as object), ...facts };
  Manifest.parse(updated);
  const { mode } = await stat(path);
  const temporary = join(checkpoint.dir, `.${MANIFEST_FILE}.partial-${randomBytes(4).toString("hex")}`);
  try {
    const file = await open(temporary, "wx", mode);
    try {
      await file.writeFile(`${JSON.stringify(updated, null, 1)}\n`);
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(temporary, path);
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
}
