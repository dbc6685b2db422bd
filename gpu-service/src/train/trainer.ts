import { type Architecture, type ExitSet, LAYER_MATRICES } from "@fathom/shared";
import { selectMatrices } from "../checkpoint/select-matrices.ts";
import { randomStream } from "../random/random-stream.ts";
import { adamWStep, clipScale } from "./adamw.ts";
import { Backprop, type ExitLoss } from "./backprop.ts";
import { targetsOf } from "./batch.ts";
import type { TrainConfig } from "./config.ts";
import { type Dataset, epochBatches, padded } from "./data/dataset.ts";
import type { Example } from "./data/encode-record.ts";
import { type Frozen, frozenTensors, parseFrozen } from "./frozen.ts";
import { IntermediateHeads, initialHeads } from "./intermediate-heads.ts";
import { freshAdapters, mergeAdapters } from "./lora.ts";
import { distill } from "./objectives/distill.ts";
import { METHODS } from "./objectives/methods.ts";
import { type Gradients, gradientNorm, type Parameters } from "./parameters.ts";
import { learningRate } from "./schedule.ts";
import type { RunState } from "./state-file.ts";
import { TrainError } from "./train-error.ts";

/** Random streams by purpose; 1 is the data's order. */
const EXIT_STREAM = 2;

export interface StepResult {
  /** Steps done before this one. */
  step: number;
  epoch: number;
  /** Σ weight · loss over the step's terms, distillation included. */
  loss: number;
  exits: ExitLoss[];
  learningRate: number;
  gradientNorm: number;
  /** Tokens of the step without padding. */
  tokens: number;
}

export interface HeldOutScore {
  depth: number;
  /** Mean cross-entropy over held-out targets, nats. */
  loss: number;
  accuracy: number;
  /** Share of targets where the most probable token is full depth's. */
  agreement: number;
}

/** Trains parameters step by step; everything random follows from the seed and the step. */
export class Trainer {
  readonly #config: TrainConfig;
  readonly #exits: ExitSet;
  readonly #data: Dataset;
  readonly #backprop: Backprop;
  /** Heads of the exits' own, with method ict: the trunk stays as it is then. */
  readonly #heads: IntermediateHeads | undefined;
  readonly #architecture: Architecture;
  /** Whose full depth teaches; undefined when it is the model's own. */
  readonly #teacher: Parameters | undefined;
  /** All parameters: trained ones, adapters among them, are this run's own, frozen ones the base's. */
  readonly #parameters: Parameters = new Map();
  readonly state: RunState;
  #epoch: { number: number; batches: number[][] } | undefined;

  /**
   * @param base parameters of the base; never changed
   * @param teacher parameters of the teacher, undefined when the model's own full depth teaches
   * @param state where to go on; undefined starts anew
   * @param adapters to start anew with; default: fresh ones
   */
  constructor(
    a: Architecture,
    base: Parameters,
    teacher: Parameters | undefined,
    config: TrainConfig,
    exits: ExitSet,
    data: Dataset,
    state: RunState | undefined,
    adapters?: Parameters,
  ) {
    const asked = freezing(config.freeze, a);
    const lora = config.loraRank;
    const frozen = lora === undefined ? asked : allButAdapters(asked, a, config);
    const ict = config.method === "ict";
    const fixed = ict || lora !== undefined ? new Set(base.keys()) : frozenTensors(frozen);
    const options = { threads: config.threads, spinning: config.spinning, provider: config.provider };
    this.#architecture = a;
    this.#config = config;
    this.#exits = exits;
    this.#data = data;
    this.#teacher = teacher;
    const trained: Parameters = new Map();
    for (const [name, values] of ict ? [...base, ...initialHeads(a, base, exits)] : base) {
      const own = fixed.has(name) ? values : (state?.parameters.get(name) ?? values.slice());
      if (own.length !== values.length) throw new TrainError(`the saved state does not fit the base: '${name}'`);
      this.#parameters.set(name, own);
      if (!fixed.has(name)) trained.set(name, own);
    }
    if (lora !== undefined) {
      for (const [name, values] of state?.parameters ?? adapters ?? initialAdapters(a, config)) {
        this.#parameters.set(name, values);
        trained.set(name, values);
      }
    }
    if (trained.size === 0) throw new TrainError(`'freeze': nothing is left to train`);
    if (state && state.parameters.size !== trained.size) {
      throw new TrainError("the saved state holds other parameters than the run trains");
    }
    this.state = {
      step: state?.step ?? 0,
      tokens: state?.tokens ?? 0,
      seconds: state?.seconds ?? 0,
      parameters: trained,
      optimizer: state?.optimizer ?? { step: 0, first: new Map(), second: new Map() },
    };
    this.#backprop = new Backprop(a, { frozen, ...options });
    if (ict) this.#heads = new IntermediateHeads(a, base, exits, this.#backprop, options, trained);
  }

  /** Steps of the whole run. */
  get steps(): number {
    const { maxSteps, epochs, accumulation } = this.#config;
    return maxSteps ?? Math.max(1, Math.ceil((epochs * this.#batchesPerEpoch) / accumulation));
  }

  /**
   * Makes one step.
   * @param onSound called when the loss and gradient of the present state are known to be numbers, before it changes:
   *   the moment to save it
   * @throws TrainError when the loss is no number; the state is as before the step then.
   */
  async step(onSound?: () => Promise<void>): Promise<StepResult> {
    let started = performance.now();
    const { config, state } = { config: this.#config, state: this.state };
    const { step } = state;
    const random = randomStream(config.seed, EXIT_STREAM, step);
    const chosen = METHODS[config.method](
      this.#exits,
      { weights: config.exitWeights, exitsPerStep: config.exitsPerStep, alwaysFull: config.alwaysFull },
      random,
    );
    const ownFull = this.#teacher === undefined ? this.#exits.at(-1) : undefined;
    const terms = config.distill > 0 ? distill(chosen, config.distill, ownFull) : chosen;

    const micro = Array.from({ length: config.accumulation }, (_, i) =>
      padded(this.#examples(step * config.accumulation + i)),
    );
    const counts = micro.map((batch) => targetsOf(batch).labels.length);
    const total = counts.reduce((x, y) => x + y, 0);
    const gradients: Gradients = new Map();
    const sums: ExitLoss[] = terms.map(({ depth }) => ({ depth, loss: 0, accuracy: 0 }));
    for (const [i, batch] of micro.entries()) {
      const scale = (counts[i] ?? 0) / total;
      const teacher = this.#teacher ?? "self";
      const losses = this.#heads
        ? await this.#heads.run(batch, scale, gradients)
        : await this.#backprop.run(this.#parameters, batch, terms, gradients, { teacher, scale });
      for (const [e, { loss, accuracy, kl }] of losses.entries()) {
        const sum = sums[e];
        if (!sum) continue;
        sum.loss += scale * loss;
        sum.accuracy += scale * accuracy;
        if (kl !== undefined) sum.kl = (sum.kl ?? 0) + scale * kl;
      }
    }
    const loss = sums.reduce((sum, { loss, kl = 0 }, e) => {
      const { weight = 0, distillWeight = 0 } = terms[e] ?? {};
      return sum + weight * loss + distillWeight * kl;
    }, 0);
    const norm = gradientNorm(gradients);
    if (!Number.isFinite(loss) || !Number.isFinite(norm)) {
      throw new TrainError(
        `step ${step}: the loss is ${loss} and its gradient's norm ${norm}; try a lower learning rate`,
      );
    }
    const found = performance.now();
    await onSound?.();
    // Saving is not training.
    started += performance.now() - found;
    const rate = learningRate(config.learningRate, step, {
      kind: config.schedule,
      warmup: config.warmup,
      steps: this.steps,
    });
    adamWStep(state.parameters, gradients, state.optimizer, rate, clipScale(norm, config.clip), config);
    const tokens = micro.reduce((sum, _, i) => sum + tokensOf(this.#examples(step * config.accumulation + i)), 0);
    state.step++;
    state.tokens += tokens;
    state.seconds += (performance.now() - started) / 1000;
    const epoch = Math.floor((step * config.accumulation) / this.#batchesPerEpoch);
    return { step, epoch, loss, exits: sums, learningRate: rate, gradientNorm: norm, tokens };
  }

  /**
   * Measures every exit on the first `evalRecords` held-out records.
   * @throws TrainError when a loss is no number.
   */
  async evaluate(): Promise<HeldOutScore[]> {
    const examples = this.#data.heldOut.slice(0, this.#config.evalRecords);
    const sums = this.#exits.map((depth) => ({ depth, targets: 0, loss: 0, correct: 0, agreed: 0 }));
    for (const batch of heldOutBatches(examples, this.#config.batch)) {
      const scores = this.#heads
        ? await this.#heads.evaluate(batch, this.#exits.at(-1) ?? 0)
        : await this.#backprop.evaluate(this.#parameters, batch, this.#exits);
      for (const [e, score] of scores.entries()) {
        const sum = sums[e];
        if (!sum) continue;
        sum.targets += score.targets;
        sum.loss += score.loss;
        sum.correct += score.correct;
        sum.agreed += score.agreed;
      }
    }
    if (examples.length === 0) return [];
    const broken = sums.find(({ loss }) => !Number.isFinite(loss));
    if (broken) {
      throw new TrainError(
        `step ${this.state.step}: the held-out loss at depth ${broken.depth} is ${broken.loss}; try a lower learning rate`,
      );
    }
    return sums.map(({ depth, targets, loss, correct, agreed }) => ({
      depth,
      loss: loss / targets,
      accuracy: correct / targets,
      agreement: agreed / targets,
    }));
  }

  async close(): Promise<void> {
    await this.#heads?.close();
    await this.#backprop.close();
  }

  /** All parameters under their checkpoint names; adapters are merged into their matrices. */
  async trainedParameters(): Promise<Parameters> {
    if (this.#config.loraRank === undefined) return this.#parameters;
    return mergeAdapters(this.#architecture, this.#parameters, { threads: this.#config.threads });
  }

  get #batchesPerEpoch(): number {
    return Math.ceil(this.#data.train.length / this.#config.batch);
  }

  #examples(index: number): Example[] {
    const number = Math.floor(index / this.#batchesPerEpoch);
    if (this.#epoch?.number !== number) {
      const { batch, seed } = this.#config;
      this.#epoch = { number, batches: epochBatches(this.#data.train, batch, seed, number) };
    }
    const batch = this.#epoch.batches[index % this.#batchesPerEpoch] ?? [];
    return batch.map((i) => this.#data.train[i]).filter((example) => example !== undefined);
  }
}

/** The fresh adapters of a run with these settings. */
export function initialAdapters(a: Architecture, config: TrainConfig): Parameters {
  return freshAdapters(a, adaptedMatrices(a, config), config.loraRank ?? 1, config.seed);
}

/** The matrices that a run with adapters adapts. @throws TrainError when there are none. */
function adaptedMatrices(a: Architecture, { freeze, adapt }: TrainConfig): Set<string> {
  const { layers } = freezing(freeze, a);
  const wanted = inSetting("adapt", () => selectMatrices(adapt ?? LAYER_MATRICES.join(), a));
  return new Set([...wanted].filter((name) => !layers.has(layerOf(name))));
}

/** With adapters the layers that have none are frozen too, and everything outside the layers. */
function allButAdapters(asked: Frozen, a: Architecture, config: TrainConfig): Frozen {
  const learning = new Set([...adaptedMatrices(a, config)].map(layerOf));
  const layers = Array.from({ length: a.layers }, (_, layer) => layer).filter((layer) => !learning.has(layer));
  return { ...asked, embeddings: true, head: true, norm: true, layers: new Set(layers) };
}

function layerOf(tensor: string): number {
  return Number(tensor.split(".")[1]);
}

function freezing(text: string, a: Architecture): Frozen {
  return inSetting("freeze", () => parseFrozen(text, a));
}

/** @throws TrainError that names the setting when its text is not understood. */
function inSetting<T>(name: string, parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    if (error instanceof RangeError) throw new TrainError(`'${name}': ${error.message}`);
    throw error;
  }
}

function* heldOutBatches(examples: readonly Example[], size: number) {
  const sorted = [...examples].sort((x, y) => x.tokens.length - y.tokens.length);
  for (let from = 0; from < sorted.length; from += size) yield padded(sorted.slice(from, from + size));
}

function tokensOf(examples: readonly Example[]): number {
  return examples.reduce((sum, { tokens }) => sum + tokens.length, 0);
}
