import { cp, mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { importCheckpoint } from "@fathom/gpu-service/checkpoint/import-checkpoint.ts";
import { tinyTokenizer } from "@fathom/gpu-service/text/testing/tiny-tokenizer.ts";

const FIXTURE = fileURLToPath(new URL("../../fixtures/tiny-llama/tied/", import.meta.url));

export const TINY_EXITS = [2, 4, 6, 8];
export const TINY_NAME = "tiny";

export interface TinyCheckpoint {
  dir: string;
  remove(): Promise<void>;
}

/** Imports the random tiny LLaMA (8 layers, vocabulary 320, context 256) as fp32, with a byte-level tokenizer or without. */
export async function tinyCheckpoint({ tokenizer = true } = {}): Promise<TinyCheckpoint> {
  const root = await mkdtemp(join(tmpdir(), "fathom-tiny-"));
  const source = join(root, "source");
  for (const file of ["config.json", "generation_config.json", "model.safetensors"]) {
    await cp(join(FIXTURE, file), join(source, file));
  }
  if (tokenizer) {
    const { json, config } = tinyTokenizer();
    await writeFile(join(source, "tokenizer.json"), JSON.stringify(json));
    await writeFile(join(source, "tokenizer_config.json"), JSON.stringify(config));
  }
  const dir = join(root, "checkpoint");
  await importCheckpoint(source, dir, { exits: TINY_EXITS, weights: "fp32", name: TINY_NAME });
  return { dir, remove: () => rm(root, { recursive: true }) };
}
