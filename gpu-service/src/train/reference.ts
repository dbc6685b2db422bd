import { readFile } from "node:fs/promises";
import { join } from "node:path";
import type { Architecture } from "@fathom/shared";
import { huggingFaceTensors, sliceFor } from "../checkpoint/huggingface/tensor-names.ts";
import { importCheckpoint } from "../checkpoint/import-checkpoint.ts";
import { openCheckpoint } from "../checkpoint/open-checkpoint.ts";
import type { ExecutionProvider } from "../engine/types.ts";
import { adamWStep, clipScale, newAdamWState } from "./adamw.ts";
import { Backprop, type ExitLoss } from "./backprop.ts";
import type { Batch } from "./batch.ts";
import { type Gradients, gradientNorm, loadParameters, type Parameters } from "./parameters.ts";

interface MethodReference {
  loss: number;
  grad_norm: number;
  /** L2 norm by Hugging Face parameter name; parameters without a gradient are absent. */
  grad_norms: Record<string, number>;
}

/** What a reference file says of training, in its own field names. */
export interface TrainingReference {
  exits: number[];
  loss_per_exit: number[];
  sft: MethodReference;
  soft: MethodReference;
  lite: MethodReference;
  sorted_sample: MethodReference;
  soft_adamw: { losses: number[] };
}

interface ReferenceInput {
  exits: number[];
  batch: { input_ids: number[][]; labels: number[][] };
  soft_adamw: {
    lr: number;
    betas: [number, number];
    eps: number;
    weight_decay: number;
    clip: number;
    /** What PyTorch got, a number per step; where it is left out there are five. */
    losses?: number[];
  };
}

/**
 * Computes everything that a reference folder (config.json, model.safetensors, reference.json) states about training, with
 * its exits, batch and optimiser settings.
 * @param scratch an existing folder for the imported checkpoint
 * @param provider where the graphs run
 */
export async function trainingReference(
  source: string,
  scratch: string,
  provider: ExecutionProvider = "cpu",
): Promise<{ reference: TrainingReference; softGradients: Map<string, Float32Array> }> {
  const input: ReferenceInput = JSON.parse(await readFile(join(source, "reference.json"), "utf8"));
  const { exits } = input;
  const dir = join(scratch, "checkpoint");
  await importCheckpoint(source, dir, { exits, weights: "fp32", force: true });
  const checkpoint = await openCheckpoint(dir);
  const a = checkpoint.manifest.architecture;
  const parameters = await loadParameters(checkpoint);
  const batch: Batch = {
    rows: input.batch.input_ids.length,
    length: input.batch.input_ids[0]?.length ?? 0,
    tokens: Int32Array.from(input.batch.input_ids.flat()),
    labels: Int32Array.from(input.batch.labels.flat()),
  };
  const backprop = new Backprop(a, { threads: 2, provider });
  try {
    const count = exits.length;
    const lite = exits.map((_, i) => i + 1);
    const liteSum = lite.reduce((x, y) => x + y, 0);
    const run = (weights: number[]) => runMethod(backprop, a, parameters, batch, exits, weights);
    const soft = await run(exits.map(() => 1 / count));
    const reference: TrainingReference = {
      exits,
      loss_per_exit: soft.losses.map(({ loss }) => loss),
      sft: (await run(exits.map((_, i) => (i === count - 1 ? 1 : 0)))).result,
      soft: soft.result,
      lite: (await run(lite.map((w) => w / liteSum))).result,
      sorted_sample: (await run(exits.map((_, i) => (i === 1 ? 1 : 0)))).result,
      soft_adamw: { losses: await adamW(backprop, parameters, batch, exits, input.soft_adamw) },
    };
    return { reference, softGradients: byHuggingFaceName(a, soft.gradients) };
  } finally {
    await backprop.close();
  }
}

async function runMethod(
  backprop: Backprop,
  a: Architecture,
  parameters: Parameters,
  batch: Batch,
  exits: readonly number[],
  weights: readonly number[],
): Promise<{ result: MethodReference; losses: ExitLoss[]; gradients: Gradients }> {
  const gradients: Gradients = new Map();
  const terms = exits.map((depth, i) => ({ depth, weight: weights[i] ?? 0 })).filter(({ weight }) => weight > 0);
  const losses = await backprop.run(parameters, batch, terms, gradients);
  const loss = losses.reduce((sum, exit, i) => sum + exit.loss * (terms[i]?.weight ?? 0), 0);
  const norms = [...byHuggingFaceName(a, gradients)].map(([name, values]) => [name, l2(values)] as const);
  return {
    result: { loss, grad_norm: gradientNorm(gradients), grad_norms: Object.fromEntries(norms) },
    losses,
    gradients,
  };
}

async function adamW(
  backprop: Backprop,
  initial: Parameters,
  batch: Batch,
  exits: readonly number[],
  settings: ReferenceInput["soft_adamw"],
): Promise<number[]> {
  const parameters: Parameters = new Map([...initial].map(([name, values]) => [name, values.slice()]));
  const state = newAdamWState();
  const [beta1, beta2] = settings.betas;
  const options = { beta1, beta2, epsilon: settings.eps, weightDecay: settings.weight_decay };
  const losses: number[] = [];
  for (let step = 0; step < (settings.losses?.length ?? 5); step++) {
    const gradients: Gradients = new Map();
    const terms = exits.map((depth) => ({ depth, weight: 1 / exits.length }));
    const exitLosses = await backprop.run(parameters, batch, terms, gradients);
    losses.push(exitLosses.reduce((sum, { loss }) => sum + loss, 0) / exits.length);
    adamWStep(parameters, gradients, state, settings.lr, clipScale(gradientNorm(gradients), settings.clip), options);
  }
  return losses;
}

function byHuggingFaceName(a: Architecture, gradients: Gradients): Map<string, Float32Array> {
  const named = new Map<string, Float32Array>();
  for (const tensor of huggingFaceTensors(a)) {
    const values = gradients.get(tensor.source);
    if (values) named.set(tensor.name, sliceFor(tensor, values));
  }
  return named;
}

function l2(values: Float32Array): number {
  return Math.sqrt(values.reduce((sum, x) => sum + x * x, 0));
}
