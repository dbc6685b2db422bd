import type { ExitTerm } from "../head-runner.ts";

/** What an objective may look at. */
export interface ObjectiveOptions {
  /** Weights of the exits in the same order, for methods that weigh them. */
  weights?: readonly number[] | undefined;
  /** Exits to draw, for methods that draw. */
  exitsPerStep: number;
  /** Full depth is among the drawn exits in every step. */
  alwaysFull: boolean;
}

/**
 * Chooses what a step runs: a pure function of the exit set, the options and a stream of random numbers.
 * @returns exits in ascending order whose weights sum to 1; the step's loss is Σ weight · loss
 */
export type Objective = (exits: readonly number[], options: ObjectiveOptions, random: () => number) => ExitTerm[];
