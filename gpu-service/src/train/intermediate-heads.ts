import type { Architecture } from "@fathom/shared";
import { type AdamWOptions, type AdamWState, adamWStep, clipScale, newAdamWState } from "./adamw.ts";
import type { Backprop, ExitScore } from "./backprop.ts";
import { type Batch, targetsOf } from "./batch.ts";
import { NOTHING_FROZEN } from "./frozen.ts";
import { type ExitLoss, HeadRunner } from "./head-runner.ts";
import { type Gradients, gradientNorm, headName, type Parameters, parameter } from "./parameters.ts";
import { type SessionOptions, TrainingSessions } from "./training-sessions.ts";

interface OwnHead {
  /** A norm and a head; the trunk's names. */
  parameters: Parameters;
  optimizer: AdamWState;
}

/**
 * Intermediate classifier tuning: a frozen trunk, and at every exit but the last a norm and head of its own, which start as
 * copies of the trunk's (the ICT baseline of LITE and Sorted LLaMA).
 */
export class IntermediateHeads {
  readonly #depths: readonly number[];
  readonly #trunk: Parameters;
  readonly #backprop: Backprop;
  readonly #sessions: TrainingSessions;
  readonly #runner: HeadRunner;
  readonly #heads = new Map<number, OwnHead>();

  /**
   * @param exits ascending; the last one keeps the trunk's head
   * @param backprop runs the trunk; the caller closes it
   */
  constructor(
    a: Architecture,
    trunk: Parameters,
    exits: readonly number[],
    backprop: Backprop,
    options: SessionOptions,
  ) {
    this.#depths = exits.slice(0, -1);
    this.#trunk = trunk;
    this.#backprop = backprop;
    this.#sessions = new TrainingSessions(a, options);
    this.#runner = new HeadRunner(a, this.#sessions, NOTHING_FROZEN);
    const names = ["norm", headName(a)];
    for (const depth of this.#depths) {
      const parameters: Parameters = new Map(names.map((name) => [name, parameter(trunk, name).slice()]));
      this.#heads.set(depth, { parameters, optimizer: newAdamWState() });
    }
  }

  /** Parameters beyond the trunk's. */
  get extraParameters(): number {
    const sizes = [...this.#heads.values()].flatMap(({ parameters }) => [...parameters.values()]);
    return sizes.reduce((sum, { length }) => sum + length, 0);
  }

  /** One step of every head on a batch. */
  async step(batch: Batch, learningRate: number, clip: number, options: AdamWOptions): Promise<ExitLoss[]> {
    const rows = await this.#backprop.exitRows(this.#trunk, batch, this.#depths);
    const targets = targetsOf(batch);
    const losses: ExitLoss[] = [];
    for (const [depth, { parameters, optimizer }] of this.#heads) {
      const gradients: Gradients = new Map();
      const result = await this.#runner.run(parameters, [{ depth, weight: 1 }], rows, targets, gradients, undefined);
      adamWStep(parameters, gradients, optimizer, learningRate, clipScale(gradientNorm(gradients), clip), options);
      losses.push(...result.losses);
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
    for (const [depth, { parameters }] of this.#heads) {
      const own = new Map([[depth, rows.get(depth) ?? new Float32Array()]]);
      const measured = (await this.#runner.measure(parameters, own, targets)).get(depth);
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
}
