import { readFileSync } from "node:fs";
import { mkdir, mkdtemp } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { importCheckpoint } from "@fathom/gpu-service/checkpoint/import-checkpoint.ts";
import type { WeightFormat } from "@fathom/shared";

/** One prompt of the reference: what Hugging Face transformers computed from the same weights in fp32. */
export interface ReferenceCase {
  prompt: string;
  rendered: string;
  token_ids: number[];
  exits: { top5: number[]; logits: number[]; confidence: number }[];
  greedy40: number[];
}

export interface Reference {
  exits: number[];
  cases: ReferenceCase[];
}

export const reference: Reference = JSON.parse(
  readFileSync(fileURLToPath(new URL("../fixtures/smollm2-reference.json", import.meta.url)), "utf8"),
);

/** The GGUF of SmolLM2-135M-Instruct that the suites read; absent, they are skipped and say why. */
export const GGUF = process.env.FATHOM_TEST_GGUF;
if (GGUF === undefined)
  console.warn("skipped: FATHOM_TEST_GGUF does not name SmolLM2-135M-Instruct's GGUF (see CONTRIBUTING)");

/** Imports the model at all of the reference's exits into a folder that lives as long as FATHOM_TEST_CACHE says. */
export async function smollm2(weights: WeightFormat): Promise<string> {
  const cache = process.env.FATHOM_TEST_CACHE;
  if (cache !== undefined) await mkdir(cache, { recursive: true });
  const parent = cache ?? (await mkdtemp(join(tmpdir(), "fathom-smollm2-")));
  const out = join(parent, `smollm2-${weights}`);
  await importCheckpoint(GGUF ?? "", out, { exits: reference.exits, weights, force: true });
  return out;
}
