import type { DepthReason } from "@fathom/shared";

/** How an offer may be made to fit a short budget: with fewer answer tokens. */
export interface Clip {
  /** Tokens that cost the same whatever the answer's length. */
  promptTokens: number;
  /** What one more token costs: depth × price. */
  nanoUsdPerToken: number;
}

/** A depth put to the ledger with what it can cost. */
export interface Offer {
  depth: number;
  reason: DepthReason;
  /** Worst case, micro-USD: reserved until the answer is settled. */
  cost: number;
  /** Budget of the month that must remain once `cost` is reserved, micro-USD. */
  keep: number;
  /** Set where the plan lets the answer be shortened. */
  clip?: Clip | undefined;
  /** Set once it was shortened: the longest answer that `cost` covers, tokens. */
  maxTokens?: number;
}

/** What is left to spend, micro-USD. */
export interface Remaining {
  /** Of every window that has a budget, the least. */
  least: number;
  /** Of the month. */
  month: number;
}

/** A shorter answer than this is not worth its prompt. */
export const MIN_CLIPPED_TOKENS = 16;

/**
 * The first offer that is covered; else the last one, which is the cheapest, with as many answer tokens as are covered.
 * @param month micro-USD left of the month's budget
 * @param least of every window that has a budget, the least that is left
 */
export function acceptOffer(offers: readonly Offer[], month: number, least: number = month): Offer | undefined {
  const whole = offers.find(({ cost, keep }) => cost <= least && cost + keep <= month);
  return whole ?? clipOffer(offers.at(-1), least);
}

/** The least that must be left for `acceptOffer` to accept anything; undefined without offers. */
export function leastCost(offers: readonly Offer[]): number | undefined {
  const last = offers.at(-1);
  if (!last?.clip) return last?.cost;
  return Math.min(last.cost, costOf(last.clip, MIN_CLIPPED_TOKENS));
}

/**
 * The offer with the largest number of answer tokens that `budget` micro-USD cover, exact to the token and the unit.
 * Undefined when the offer may not be clipped or too few tokens are covered.
 */
function clipOffer(offer: Offer | undefined, budget: number): Offer | undefined {
  if (!offer?.clip || offer.clip.nanoUsdPerToken === 0 || budget < 0) return undefined;
  const { promptTokens, nanoUsdPerToken } = offer.clip;
  const covered = Number((BigInt(budget) * 1000n) / BigInt(nanoUsdPerToken));
  const maxTokens = covered - promptTokens;
  if (maxTokens < MIN_CLIPPED_TOKENS) return undefined;
  return { ...offer, maxTokens, cost: costOf(offer.clip, maxTokens) };
}

function costOf({ promptTokens, nanoUsdPerToken }: Clip, maxTokens: number): number {
  return Number((BigInt(promptTokens + maxTokens) * BigInt(nanoUsdPerToken) + 999n) / 1000n);
}
