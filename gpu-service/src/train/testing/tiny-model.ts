import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Architecture } from "@fathom/shared";
import { importCheckpoint } from "../../checkpoint/import-checkpoint.ts";
import { openCheckpoint } from "../../checkpoint/open-checkpoint.ts";
import type { Batch } from "../batch.ts";
import { loadParameters, type Parameters } from "../parameters.ts";

const FIXTURES = new URL("../../../../test/fixtures/tiny-llama/", import.meta.url).pathname;

export interface TinyModel {
  architecture: Architecture;
  exits: number[];
  parameters: Parameters;
  /** Four padded rows with labels. */
  batch: Batch;
}

/** Imports a tiny LLaMA as an fp32 checkpoint into `dir`. */
export async function importTiny(variant: "tied" | "untied", dir: string): Promise<TinyModel> {
  const source = join(FIXTURES, variant);
  const { exits, batch }: { exits: number[]; batch: { input_ids: number[][]; labels: number[][] } } = JSON.parse(
    await readFile(join(source, "reference.json"), "utf8"),
  );
  await importCheckpoint(source, dir, { exits, weights: "fp32" });
  const checkpoint = await openCheckpoint(dir);
  return {
    architecture: checkpoint.manifest.architecture,
    exits,
    parameters: await loadParameters(checkpoint),
    batch: {
      rows: batch.input_ids.length,
      length: batch.input_ids[0]?.length ?? 0,
      tokens: Int32Array.from(batch.input_ids.flat()),
      labels: Int32Array.from(batch.labels.flat()),
    },
  };
}
