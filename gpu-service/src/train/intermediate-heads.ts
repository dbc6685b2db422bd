import { type Architecture, headTensors } from "@fathom/shared";
import { type AdamWOptions, type AdamWState, adamWStep, clipScale, newAdamWState } from "./adamw.ts";
import type { Backprop, ExitScore } from "./backprop.ts";
import { type Batch, targetsOf } from "./batch.ts";
import { NOTHING_FROZEN } from "./frozen.ts";
import { type ExitLoss, HeadRunner } from "./head-runner.ts";
import { accumulate, type Gradients, gradientNorm, headName, type Parameters, parameter } from "./parameters.ts";
import { type SessionOptions, TrainingSessions } from "./training-sessions.ts";

/** Copies of the trunk's norm and head for every exit but the last, by their checkpoint names. */
export function initialHeads(a: Architecture, trunk: Parameters, exits: readonly number[]): Parameters {
  const depths = exits.slice(0, -1);
  return new Map(
    depths.flatMap((depth) => {
      const { norm, head } = headTensors(a, depth, depths);
      return [
        [norm, parameter(trunk, "norm").slice()],
        [head, parameter(trunk, headName(a)).slice()],
      ] as const;
    }),
  );
}

/**
 * Intermediate classifier tuning: a frozen trunk, and at every exit but the last a norm and head of its own, which start as
 * copies of the trunk's (the ICT baseline of LITE and Sorted LLaMA).
 */
export class IntermediateHeads {
  readonly #a: Architecture;
  readonly #depths: readonly number[];
  readonly #trunk: Parameters;
  readonly #backprop: Backprop;
  readonly #sessions: TrainingSessions;
  readonly #runner: HeadRunner;
  /** Norms and heads of the exits, by their checkpoint names; training changes them in place. */
  readonly parameters: Parameters;
  readonly #optimizers = new Map<number, AdamWState>();

  /**
   * @param exits ascending; the last one keeps the trunk's head
   * @param backprop runs the trunk; the caller closes it
   * @param heads where to go on; default `initialHeads`
   */
  constructor(
    a: Architecture,
    trunk: Parameters,
    exits: readonly number[],
    backprop: Backprop,
    options: SessionOptions,
    heads: Parameters = initialHeads(a, trunk, exits),
  ) {
    this.#a = a;
    this.parameters = heads;
    this.#depths = exits.slice(0, -1);
    this.#trunk = trunk;
    this.#backprop = backprop;
    this.#sessions = new TrainingSessions(a, options);
    this.#runner = new HeadRunner(a, this.#sessions, NOTHING_FROZEN);
  }

  /** Parameters beyond the trunk's. */
  get extraParameters(): number {
    return [...this.parameters.values()].reduce((sum, { length }) => sum + length, 0);
  }

  /**
   * Losses of every own head on a batch.
   * @param gradients receives the gradients of Σ scale · loss by checkpoint name, added to what is there
   */
  async run(batch: Batch, scale: number, gradients: Gradients): Promise<ExitLoss[]> {
    const rows = await this.#backprop.exitRows(this.#trunk, batch, this.#depths);
    const targets = targetsOf(batch);
    const losses: ExitLoss[] = [];
    for (const depth of this.#depths) {
      const own: Gradients = new Map();
      const terms = [{ depth, weight: scale }];
      const result = await this.#runner.run(this.#view(depth), terms, rows, targets, own, undefined);
      const names = headTensors(this.#a, depth, this.#depths);
      accumulate(gradients, names.norm, parameter(own, "norm"));
      accumulate(gradients, names.head, parameter(own, headName(this.#a)));
      losses.push(...result.losses);
    }
    return losses;
  }

  /** One step of every head on a batch, each clipped and updated by itself. */
  async step(batch: Batch, learningRate: number, clip: number, options: AdamWOptions): Promise<ExitLoss[]> {
    const gradients: Gradients = new Map();
    const losses = await this.run(batch, 1, gradients);
    for (const depth of this.#depths) {
      const names = Object.values(headTensors(this.#a, depth, this.#depths));
      const own: Gradients = new Map(names.map((name) => [name, parameter(gradients, name)]));
      const optimizer = this.#optimizers.get(depth) ?? newAdamWState();
      this.#optimizers.set(depth, optimizer);
      adamWStep(this.parameters, own, optimizer, learningRate, clipScale(gradientNorm(own), clip), options);
    }
    return losses;
  }

  /** Measures every exit with its own head, and full depth with the trunk's. */
  async evaluate(batch: Batch, fullDepth: number): Promise<ExitScore[]> {
    const [last] = await this.#backprop.evaluate(this.#trunk, batch, [fullDepth]);
    const rows = await this.#backprop.exitRows(this.#trunk, batch, [...this.#depths, fullDepth]);
    const targets = targetsOf(batch);
    const top = new Map([[fullDepth, rows.get(fullDepth) ?? new Float32Array()]]);
    const full = (await this.#runner.measure(this.#trunk, top, targets)).get(fullDepth)?.predicted;
    const scores: ExitScore[] = [];
    for (const depth of this.#depths) {
      const own = new Map([[depth, rows.get(depth) ?? new Float32Array()]]);
      const measured = (await this.#runner.measure(this.#view(depth), own, targets)).get(depth);
      const score = { depth, targets: targets.labels.length, loss: 0, correct: 0, agreed: 0 };
      for (const value of measured?.crossEntropy ?? []) score.loss += value;
      for (const [i, token] of (measured?.predicted ?? new Int32Array()).entries()) {
        if (token === targets.labels[i]) score.correct++;
        if (token === full?.[i]) score.agreed++;
      }
      scores.push(score);
    }
    return last ? [...scores, last] : scores;
  }

  /** Frees the native sessions. */
  close(): Promise<void> {
    return this.#sessions.close();
  }

  /** An exit's norm and head under the trunk's names. */
  #view(depth: number): Parameters {
    const { norm, head } = headTensors(this.#a, depth, this.#depths);
    return new Map([
      ["norm", parameter(this.parameters, norm)],
      [headName(this.#a), parameter(this.parameters, head)],
    ]);
  }
}
