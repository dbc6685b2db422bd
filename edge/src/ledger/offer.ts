import type { DepthReason } from "@fathom/shared";

/** A depth put to the ledger with what it can cost. */
export interface Offer {
  depth: number;
  reason: DepthReason;
  /** Worst case, micro-USD: reserved until the answer is settled. */
  cost: number;
  /** Budget that must remain once `cost` is reserved, micro-USD. */
  keep: number;
}

/** The first offer that `remaining` micro-USD cover. */
export function acceptOffer(offers: readonly Offer[], remaining: number): Offer | undefined {
  return offers.find(({ cost, keep }) => cost + keep <= remaining);
}
