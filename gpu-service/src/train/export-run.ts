import { readFile } from "node:fs/promises";
import { basename, join } from "node:path";
import type { ExitSet, Manifest } from "@fathom/shared";
import { tensorShapes } from "@fathom/shared";
import { type CheckpointHeader, CheckpointWriter } from "../checkpoint/checkpoint-writer.ts";
import { modelCard } from "../checkpoint/model-card.ts";
import type { Checkpoint } from "../checkpoint/open-checkpoint.ts";
import { weightPlan } from "../checkpoint/weight-plan.ts";
import type { TrainConfig } from "./config.ts";
import { type Parameters, parameter } from "./parameters.ts";

export interface TrainedModel {
  base: Checkpoint;
  exits: ExitSet;
  parameters: Parameters;
  config: TrainConfig;
  step: number;
}

/** Writes trained parameters as an fp32 nested checkpoint with the base's tokenizer; replaces one that is there. */
export async function exportRun(
  dir: string,
  { base, exits, parameters, config, step }: TrainedModel,
): Promise<Manifest> {
  const { architecture, name, tokenizer, provenance, files } = base.manifest;
  const exitHeads = config.method === "ict" ? exits.slice(0, -1) : [];
  const header: CheckpointHeader = {
    name: `${name.replace(/-nested$/, "").slice(0, 120)}-nested`,
    architecture,
    exits,
    ...(exitHeads.length > 0 ? { exit_heads: exitHeads } : {}),
    tokenizer,
    quantization: weightPlan("fp32"),
    provenance: {
      ...provenance,
      created: new Date().toISOString(),
      notes:
        `${provenance.notes === undefined ? "" : `${provenance.notes}; `}trained with ${config.method} on ${basename(config.data)} for ${step} steps` +
        (config.distill > 0 ? `, ${config.distill} of the loss distilled from ${basename(config.teacher)}` : ""),
    },
  };
  const writer = await CheckpointWriter.create(dir, header, { force: true });
  try {
    for (const tensor of tensorShapes(architecture, exitHeads).keys()) {
      await writer.writeTensor(tensor, parameter(parameters, tensor));
    }
    for (const { path } of files) {
      if (/^tokenizer[a-z_]*\.json$/.test(path)) await writer.writeFile(path, await readFile(join(base.dir, path)));
    }
    await writer.writeFile("README.md", modelCard(header));
    return await writer.finish();
  } catch (error) {
    await writer.abort();
    throw error;
  }
}
