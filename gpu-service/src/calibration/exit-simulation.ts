import type { ExitScores } from "../engine/types.ts";
import { CalibrationError } from "./calibration-error.ts";

/** A top probability per depth from which a token stops there; a depth without one is passed. As in the manifest. */
export type Thresholds = Readonly<Record<number, number>>;

/** Below every threshold. */
const PASSED = -1;

/** What the exits before full depth said about the tokens of one prompt's full-depth continuation. */
export interface RecordedAnswer {
  /** Tokens decided, at least one; the token that ends an answer is one of them. */
  tokens: number;
  /** Per early exit, ascending: top probability of each token, float32 [tokens]; negative where the exit is passed anyway. */
  confidence: Float32Array[];
  /** Per early exit: 1 where its token differs from full depth's, uint8 [tokens]. */
  differs: Uint8Array[];
}

/** Outcome of thresholds on recorded answers. */
export interface Simulation {
  /** Per answer: share of its tokens whose exit's token differs from full depth's. */
  losses: Float64Array;
  tokens: number;
  differing: number;
  /** Layers used by all tokens together. */
  layers: number;
  /** Per exit, full depth included: tokens decided there, and those of them that differ. */
  exits: { depth: number; tokens: number; differing: number }[];
}

/**
 * Makes a record of an answer's scores. The engine decides an answer's first token behind the prompt, which it prefills at
 * full depth: no exit may take it.
 * @param scores of at least the exits `depths`
 * @param depths ascending, full depth last
 */
export function recordAnswer(scores: readonly ExitScores[], depths: readonly number[]): RecordedAnswer {
  const rows = depths.map((depth) => {
    const row = scores.find((score) => score.depth === depth);
    if (row) return row;
    throw new CalibrationError(`the engine scored no exit at depth ${depth}`);
  });
  const full = rows.pop();
  if (!full) throw new RangeError("an exit set has at least one exit");
  return {
    tokens: full.predicted.length,
    confidence: rows.map(({ confidence }) => confidence.map((p, i) => (i === 0 ? PASSED : p))),
    differs: rows.map(({ predicted }) =>
      Uint8Array.from(predicted, (token, i) => (token === full.predicted[i] ? 0 : 1)),
    ),
  };
}

/**
 * Lets every token stop at the first exit whose confidence reaches its threshold, else at full depth: what the engine does
 * when a token's prefix is the recorded one, because its K/V are exact. (Its cap on pending rows sends a token to full depth
 * now and then that would have left early, which agrees no less.)
 * @param depths ascending, full depth last
 */
export function simulateExits(
  answers: readonly RecordedAnswer[],
  depths: readonly number[],
  thresholds: Thresholds,
): Simulation {
  const last = depths.length - 1;
  const limits = depths.slice(0, last).map((depth) => thresholds[depth] ?? Number.POSITIVE_INFINITY);
  const exits = depths.map((depth) => ({ depth, tokens: 0, differing: 0 }));
  const losses = new Float64Array(answers.length);
  for (const [i, { tokens, confidence, differs }] of answers.entries()) {
    let differing = 0;
    for (let t = 0; t < tokens; t++) {
      let exit = 0;
      while (exit < last && !((confidence[exit]?.[t] ?? 0) >= (limits[exit] ?? Number.POSITIVE_INFINITY))) exit++;
      const wrong = differs[exit]?.[t] ?? 0;
      const row = exits[exit];
      if (row) {
        row.tokens++;
        row.differing += wrong;
      }
      differing += wrong;
    }
    losses[i] = differing / tokens;
  }
  const total = (of: (exit: (typeof exits)[number]) => number) => exits.reduce((sum, exit) => sum + of(exit), 0);
  return {
    losses,
    exits,
    tokens: total(({ tokens }) => tokens),
    differing: total(({ differing }) => differing),
    layers: total(({ depth, tokens }) => depth * tokens),
  };
}
