import type { Architecture } from "@fathom/shared";
import { Backprop } from "../backprop.ts";
import { parseConfig, type TrainConfig } from "../config.ts";
import { type Dataset, epochBatches, padded } from "../data/dataset.ts";
import type { Example } from "../data/encode-record.ts";
import { randomParameters } from "../initialise.ts";
import { IntermediateHeads } from "../intermediate-heads.ts";
import type { Parameters } from "../parameters.ts";
import { learningRate } from "../schedule.ts";
import { type HeldOutScore, Trainer } from "../trainer.ts";
import { TOY_VOCABULARY, toyExamples } from "./toy-tasks.ts";

export interface ComparisonConfig {
  seed: number;
  steps: number;
  batch: number;
  learningRate: number;
  hidden: number;
  layers: number;
  exits: number[];
  heldOut: number;
}

export type ComparedMethod = "sft" | "sft+ict" | "sortednet" | "lite" | "soft";

export interface ComparisonRow {
  method: ComparedMethod;
  /** Beyond those of one LLaMA with one head. */
  extraParameters: number;
  exits: HeldOutScore[];
}

export interface Comparison {
  parameters: number;
  rows: ComparisonRow[];
}

const ORDER = ["sft", "sortednet", "lite", "soft"] as const;

/**
 * Trains one small LLaMA from the same random start with every method, for the same number of steps on the same batches, and
 * measures every exit on held-out examples. ICT's heads are trained for as many steps again on the SFT model.
 */
export async function sortedVsSft(
  config: ComparisonConfig,
  report: (line: string) => void = () => undefined,
): Promise<Comparison> {
  const a = toyArchitecture(config);
  const start = randomParameters(a, config.seed);
  const train = toyExamples(Math.min(config.steps * config.batch, 100_000), config.seed + 1);
  const heldOut = toyExamples(config.heldOut, config.seed + 2);
  const data: Dataset = { train, heldOut, truncated: 0, dropped: 0, sha256: "" };
  const rows: ComparisonRow[] = [];
  for (const method of ORDER) {
    const settings = trainConfig(config, method);
    const trainer = new Trainer(a, start, undefined, settings, config.exits, data, undefined);
    try {
      for (let step = 0; step < config.steps; step++) {
        const { loss } = await trainer.step();
        if (step % 100 === 0) report(`${method}: step ${step}, loss ${loss.toFixed(3)}`);
      }
      rows.push({ method, extraParameters: 0, exits: await trainer.evaluate() });
      if (method === "sft")
        rows.push(await tuneHeads(a, await trainer.trainedParameters(), config, settings, data, report));
    } finally {
      await trainer.close();
    }
  }
  return { parameters: [...start.values()].reduce((sum, { length }) => sum + length, 0), rows };
}

/** The result as a table: per exit the loss and the share of tokens that are right. */
export function comparisonTable({ rows }: Comparison): string {
  const depths = rows[0]?.exits.map(({ depth }) => depth) ?? [];
  const header = ["method", "extra parameters", ...depths.map((depth) => `exit ${depth}: loss / accuracy`)];
  const lines = rows.map(({ method, extraParameters, exits }) => [
    method,
    String(extraParameters),
    ...exits.map(({ loss, accuracy }) => `${loss.toFixed(3)} / ${accuracy.toFixed(3)}`),
  ]);
  return [header, header.map(() => "---"), ...lines].map((cells) => `| ${cells.join(" | ")} |`).join("\n");
}

async function tuneHeads(
  a: Architecture,
  trunk: Parameters,
  config: ComparisonConfig,
  settings: TrainConfig,
  data: Dataset,
  report: (line: string) => void,
): Promise<ComparisonRow> {
  const options = { threads: settings.threads, spinning: settings.spinning };
  const backprop = new Backprop(a, options);
  const heads = new IntermediateHeads(a, trunk, config.exits, backprop, options);
  try {
    const perEpoch = Math.ceil(data.train.length / config.batch);
    let batches: number[][] = [];
    for (let step = 0; step < config.steps; step++) {
      const position = step % perEpoch;
      if (position === 0) batches = epochBatches(data.train, config.batch, config.seed, Math.floor(step / perEpoch));
      const examples = (batches[position] ?? []).flatMap((i) => data.train[i] ?? []);
      const schedule = { kind: settings.schedule, warmup: settings.warmup, steps: config.steps };
      const rate = learningRate(config.learningRate, step, schedule);
      await heads.step(padded(examples), rate, settings.clip, settings);
      if (step % 100 === 0) report(`sft+ict: step ${step}`);
    }
    return {
      method: "sft+ict",
      extraParameters: heads.extraParameters,
      exits: await measureHeads(heads, data.heldOut, config),
    };
  } finally {
    await heads.close();
    await backprop.close();
  }
}

async function measureHeads(heads: IntermediateHeads, examples: readonly Example[], config: ComparisonConfig) {
  const sums = new Map(config.exits.map((depth) => [depth, { depth, targets: 0, loss: 0, correct: 0, agreed: 0 }]));
  for (let from = 0; from < examples.length; from += config.batch) {
    const batch = padded(examples.slice(from, from + config.batch));
    for (const score of await heads.evaluate(batch, config.layers)) {
      const sum = sums.get(score.depth);
      if (!sum) continue;
      sum.targets += score.targets;
      sum.loss += score.loss;
      sum.correct += score.correct;
      sum.agreed += score.agreed;
    }
  }
  return [...sums.values()].map(({ depth, targets, loss, correct, agreed }) => ({
    depth,
    loss: loss / targets,
    accuracy: correct / targets,
    agreement: agreed / targets,
  }));
}

function trainConfig(config: ComparisonConfig, method: (typeof ORDER)[number]): TrainConfig {
  const { seed, batch, steps, exits, heldOut } = config;
  return parseConfig(
    {
      base: "random",
      data: "toy",
      method,
      exits,
      seed,
      batch,
      learningRate: config.learningRate,
      warmup: Math.floor(steps / 20),
      maxSteps: steps,
      // Small products leave nothing to wait for actively.
      spinning: false,
      evalRecords: heldOut,
    },
    "sorted-vs-sft",
  );
}

function toyArchitecture({ hidden, layers }: ComparisonConfig): Architecture {
  return {
    type: "llama",
    hidden_size: hidden,
    intermediate_size: Math.ceil((8 * hidden) / 3 / 32) * 32,
    layers,
    heads: hidden / 32,
    kv_heads: hidden / 64,
    head_dim: 32,
    vocab_size: TOY_VOCABULARY,
    rms_norm_eps: 1e-5,
    context_length: 64,
    rope: { theta: 10_000 },
    tied: false,
  };
}
