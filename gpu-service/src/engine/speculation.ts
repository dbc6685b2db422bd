import type { CostModel } from "./cost-model.ts";
import { drawFrom, uniform } from "./sampler.ts";

/** Longest draft. */
export const MAX_DRAFT = 8;
/** Weight of a new acceptance in the running rate. */
const SMOOTHING = 0.05;
/** Acceptance assumed before anything is known. */
const PRIOR_ACCEPTANCE = 0.8;
/** Tokens decoded plainly before a draft is tried again, at first; doubled whenever it did not pay. */
const RETRY_AFTER = 32;
const LONGEST_RETRY = 512;

/** Streams of random numbers of one answer; plain decoding draws from stream 0. */
const DRAFT_STREAM = 1;
const ACCEPT_STREAM = 2;
const RESIDUAL_STREAM = 3;

/** Random number of a stream for the token at `index`. */
function random(seed: number, index: number, stream: number): number {
  return uniform(seed, index + stream * 2 ** 28);
}

/** Draws a draft's token at `index` of the answer. */
export function drawDraft(distribution: Float64Array, seed: number, index: number): number {
  return drawFrom(distribution, random(seed, index, DRAFT_STREAM));
}

/** What a verification makes of a draft: how many of its tokens stand, and the token that the target depth adds. */
export interface Verdict {
  accepted: number;
  next: number;
}

/**
 * Verifies a draft under greedy decoding: the longest prefix that the target depth would have chosen.
 * @param target the target depth's tokens at the draft's positions and the one behind
 */
export function verifyGreedy(draft: readonly number[], target: readonly number[]): Verdict {
  let accepted = 0;
  while (accepted < draft.length && draft[accepted] === target[accepted]) accepted++;
  return { accepted, next: target[accepted] ?? 0 };
}

/**
 * Verifies a sampled draft so that the answer is distributed as the target depth's (Leviathan et al. 2023, algorithm 1; Chen
 * et al. 2023): token x stands with probability min(1, p(x)/q(x)); the first that falls is drawn anew from (p − q)⁺.
 * @param draft tokens with the distributions q that they were drawn from
 * @param target distributions p at the draft's positions and the one behind
 * @param index of the draft's first token in the answer
 */
export function verifySampled(
  draft: readonly { token: number; distribution: Float64Array }[],
  target: readonly Float64Array[],
  seed: number,
  index: number,
): Verdict {
  for (const [i, { token, distribution: q }] of draft.entries()) {
    const p = target[i];
    if (!p) throw new RangeError("a drafted token has no target distribution");
    const ratio = (p[token] ?? 0) / (q[token] ?? 1);
    if (random(seed, index + i, ACCEPT_STREAM) < ratio) continue;
    return { accepted: i, next: drawFrom(residual(p, q), random(seed, index + i, RESIDUAL_STREAM)) };
  }
  const last = target[draft.length];
  if (!last) throw new RangeError("there is no target distribution behind the draft");
  return { accepted: draft.length, next: drawFrom(last, random(seed, index + draft.length, RESIDUAL_STREAM)) };
}

/** (p − q)⁺, normalised; p itself where nothing is left of it but rounding. */
function residual(p: Float64Array, q: Float64Array): Float64Array {
  const rest = p.map((value, i) => Math.max(0, value - (q[i] ?? 0)));
  const mass = rest.reduce((x, y) => x + y, 0);
  return mass > 0 ? rest.map((value) => value / mass) : p;
}

/** Tokens that a draft of `length` yields on average when each of its tokens stands with probability `acceptance`. */
export function expectedTokens(acceptance: number, length: number): number {
  let sum = 1;
  for (let i = 1; i <= length; i++) sum += acceptance ** i;
  return sum;
}

export interface DraftSetting {
  acceptance: number;
  /** Sequences that decode at the same time; they are assumed to draft alike. */
  live: number;
  draftDepth: number;
  depth: number;
}

/** The draft length that yields most tokens per millisecond, 0 when plain decoding does. */
export function chooseDraftLength({ acceptance, live, draftDepth, depth }: DraftSetting, cost: CostModel): number {
  const plain = depth * cost.perLayer(live) + cost.head(live);
  let best = 0;
  let bestRate = 1 / plain;
  for (let length = 1; length <= MAX_DRAFT; length++) {
    const drafting = length * (draftDepth * cost.perLayer(live) + cost.head(live));
    const rows = live * (length + 1);
    const verifying = draftDepth * cost.perLayer(live) + (depth - draftDepth) * cost.perLayer(rows) + cost.head(rows);
    const rate = expectedTokens(acceptance, length) / (drafting + verifying);
    if (rate > bestRate) {
      best = length;
      bestRate = rate;
    }
  }
  return best;
}

/** Adapts the draft length of one sequence to what is accepted and what steps cost, and stops drafting where it does not pay. */
export class DraftController {
  readonly #setting: Omit<DraftSetting, "acceptance" | "live">;
  #acceptance = PRIOR_ACCEPTANCE;
  #plainLeft = 0;
  #retry = RETRY_AFTER;
  proposed = 0;
  accepted = 0;

  constructor(setting: Omit<DraftSetting, "acceptance" | "live">) {
    this.#setting = setting;
  }

  /** Length of the next draft; 0 decodes the next token plainly. */
  next(live: number, cost: CostModel): number {
    if (this.#plainLeft > 0) {
      this.#plainLeft--;
      // Nothing was learnt meanwhile: what did not pay before is given another chance.
      if (this.#plainLeft === 0) this.#acceptance = Math.max(this.#acceptance, PRIOR_ACCEPTANCE);
      return 0;
    }
    const length = chooseDraftLength({ ...this.#setting, acceptance: this.#acceptance, live }, cost);
    if (length > 0) return length;
    this.#plainLeft = this.#retry;
    this.#retry = Math.min(LONGEST_RETRY, this.#retry * 2);
    // Before anything was drafted the figures are guesses: try once.
    return this.proposed === 0 ? 1 : 0;
  }

  /** Takes the outcome of a verification. */
  observe(proposed: number, accepted: number): void {
    this.proposed += proposed;
    this.accepted += accepted;
    for (let i = 0; i < Math.min(accepted + 1, proposed); i++) {
      this.#acceptance += SMOOTHING * ((i < accepted ? 1 : 0) - this.#acceptance);
    }
  }
}
