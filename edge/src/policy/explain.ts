import { type DepthReason, fullDepth } from "@fathom/shared";
import { acceptOffer } from "../ledger/offer.ts";
import { type DepthInput, decideDepth, type ExitVerdict } from "./depth-policy.ts";
import { layerRange } from "./plan.ts";
import { priceOffers, type WorstCase } from "./worst-case.ts";

export interface ExplainInput extends DepthInput {
  worst: WorstCase;
  /** Budget that remains, micro-USD. */
  remaining: number;
}

/** Why a request got its depth, as figures and as sentences. Amounts are micro-USD. */
export interface Explanation {
  plan: { name: string; min: number; default: number; max: number; priority: number };
  load: number;
  /** How much of the way to the shallowest exit the load takes: 0 nothing, 1 all. */
  shedding: number;
  remaining_micro_usd: number;
  exits: { depth: number; verdict: ExitVerdict; why: string }[];
  /** Deepest first; the first one that is covered is chosen. */
  offers: { depth: number; reason: DepthReason; cost_micro_usd: number; keep_micro_usd: number; covered: boolean }[];
  /** Null when the budget covers no offer. */
  chosen: { depth: number; reason: DepthReason } | null;
}

/**
 * Goes through a decision as the router would make it, and says at each exit what became of it. Pure.
 * @throws ApiError as `decideDepth` does when no depth fits.
 */
export function explainDepth(input: ExplainInput): Explanation {
  const { plan, planName, exits, load, worst, remaining } = input;
  const range = layerRange(plan, fullDepth(exits));
  const decision = decideDepth(input);
  const offers = priceOffers(decision.offers, worst);
  const accepted = acceptOffer(offers, remaining);
  return {
    plan: { name: planName, ...range, priority: plan.priority },
    load,
    shedding: decision.shedding,
    remaining_micro_usd: remaining,
    exits: decision.exits.map(({ depth, verdict }) => ({ depth, verdict, why: sentence(verdict, input, range) })),
    offers: offers.map(({ depth, reason, cost, keep }) => ({
      depth,
      reason,
      cost_micro_usd: cost,
      keep_micro_usd: keep,
      covered: cost + keep <= remaining,
    })),
    chosen: accepted ? { depth: accepted.depth, reason: accepted.reason } : null,
  };
}

function sentence(
  verdict: ExitVerdict,
  { planName, plan, load }: ExplainInput,
  { min, max, default: preferred }: { min: number; max: number; default: number },
): string {
  switch (verdict) {
    case "offered":
      return "put to the ledger";
    case "plan":
      return `the plan '${planName}' runs ${min} to ${max} layers`;
    case "bounds":
      return "the request's bounds leave it out";
    case "no_better":
      return "a shallower exit is as good by the depth profile";
    case "above_default":
      return `without a wish the plan starts at ${preferred} layers`;
    case "load":
      return `at a load of ${load.toFixed(2)} it is too slow for priority ${plan.priority}`;
  }
}
