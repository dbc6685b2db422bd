import { readFileSync } from "node:fs";
import { join } from "node:path";
import { importCheckpoint } from "../../checkpoint/import-checkpoint.ts";

const FIXTURES = new URL("../../../../test/fixtures/tiny-llama/", import.meta.url).pathname;

/** What Hugging Face transformers computed for a random LLaMA; see test/fixtures/README.md. */
export interface Reference {
  exits: number[];
  prompts: number[][];
  last_logits: number[][][];
  greedy24: number[][][];
}

export type Variant = "tied" | "untied";

export function tinyReference(variant: Variant): Reference {
  return JSON.parse(readFileSync(join(FIXTURES, variant, "reference.json"), "utf8"));
}

/** Writes the random LLaMA as an fp32 checkpoint into `dir`. */
export async function importTinyLlama(variant: Variant, dir: string): Promise<void> {
  await importCheckpoint(join(FIXTURES, variant), dir, { exits: tinyReference(variant).exits, weights: "fp32" });
}
