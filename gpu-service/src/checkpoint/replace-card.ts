import { createHash, randomBytes } from "node:crypto";
import { rename, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Manifest, Manifest as ManifestSchema } from "@fathom/shared";
import { CheckpointError, writingTo } from "./checkpoint-error.ts";
import type { Checkpoint } from "./open-checkpoint.ts";
import { updateManifest } from "./update-manifest.ts";

export const CARD_FILE = "README.md";

/**
 * Gives a checkpoint a model card of its own, and a name if one is given; weights and measurements stay.
 * @param card Markdown
 * @throws CheckpointError when the name cannot be used or the disk is full.
 */
export async function replaceCard(checkpoint: Checkpoint, card: string, name?: string): Promise<void> {
  const { dir, manifest } = checkpoint;
  const checked = ManifestSchema.shape.name.safeParse(name ?? manifest.name);
  if (!checked.success) throw new CheckpointError(dir, `'${name}' is no name: letters, digits, '.', '_' and '-' only`);
  const bytes = Buffer.from(card, "utf8");
  const entry: Manifest["files"][number] = {
    path: CARD_FILE,
    bytes: bytes.length,
    sha256: createHash("sha256").update(bytes).digest("hex"),
  };
  const temporary = join(dir, `.${CARD_FILE}.partial-${randomBytes(4).toString("hex")}`);
  try {
    await writingTo(dir, () => writeFile(temporary, bytes, { flag: "wx" }));
    await rename(temporary, join(dir, CARD_FILE));
  } catch (error) {
    await rm(temporary, { force: true });
    throw error;
  }
  const files = [...manifest.files.filter(({ path }) => path !== CARD_FILE), entry];
  await writingTo(dir, () => updateManifest(checkpoint, { name: checked.data, files }));
}
