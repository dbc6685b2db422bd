import {
  ApiError,
  type DepthReason,
  type ExitSet,
  exitsBetween,
  type FathomRequest,
  fullDepth,
  requireExit,
} from "@fathom/shared";
import { layerRange, type Plan } from "./plan.ts";

/** Everything that a depth decision depends on, save the budget that remains: the ledger knows that one. */
export interface DepthInput {
  planName: string;
  plan: Plan;
  /** Exits of the checkpoint, ascending. */
  exits: ExitSet;
  /** Load of the service that will run the request: 0 idle, 1 full. */
  load: number;
  /** The request's `fathom` field. */
  wish: FathomRequest | undefined;
}

/** A depth that the request may run at. */
export interface DepthOffer {
  depth: number;
  reason: DepthReason;
  /** Budget that must remain once the offer is paid, micro-USD. */
  keep: number;
}

/** Share of the monthly budget that is kept for shallower answers, at the plan's deepest offer. */
const KEPT_SHARE = 0.1;

/** Load at which a plan of priority 0 begins to lose depth; every step of priority moves it towards 1. */
const FIRST_SHED_LOAD = 0.5;

/**
 * The depths that a request may run at, deepest first; the ledger takes the first one that the budget covers. Pure.
 *
 * - A numeric wish must be an exit and lie in the plan's range: it is granted as asked or refused, never moved to another
 *   side of the range, and load does not touch it. Only a budget that cannot cover it lowers it, since a shallower answer
 *   is better than none; a `min_depth` forbids that too.
 * - "auto" or no wish starts at the plan's default, moved into `min_depth`..`max_depth`. Load lowers it: from the load at
 *   which the plan begins to shed (later for a higher priority) to full load, the depth falls linearly from the start to
 *   the shallowest allowed exit. Budget lowers it: each deeper offer must leave more of the budget untouched, so that the
 *   last tenth of it is stretched over shallower answers.
 * - The depth caps a request whatever its exit policy: confident tokens stop below it, drafts are verified at it.
 * - No offer lies outside the plan's range or the request's bounds.
 *
 * @throws ApiError `invalid_depth` when no exit fits the wish (names the exits), `depth_not_allowed` when the plan's range
 *   does not reach it (names the range).
 */
export function depthOffers(input: DepthInput): DepthOffer[] {
  const { plan, exits, load, wish } = input;
  const range = layerRange(plan, fullDepth(exits));
  const wanted = exitsWithin(exits, wish);
  const allowed = exitsBetween(wanted, range.min, range.max);

  if (typeof wish?.depth === "number") {
    const depth = requireExit(exits, wish.depth);
    if (!wanted.includes(depth)) throw invalidDepth("fathom.depth", `${depth} lies outside min_depth and max_depth`);
    if (!allowed.includes(depth)) throw notAllowed(input, "fathom.depth");
    const shallower = allowed.filter((exit) => exit < depth).reverse();
    return [
      { depth, reason: "requested", keep: 0 },
      ...shallower.map((exit): DepthOffer => ({ depth: exit, reason: "budget", keep: 0 })),
    ];
  }

  const [lowest] = allowed;
  const start = startDepth(allowed, range.default);
  if (lowest === undefined || start === undefined) throw notAllowed(input, boundParam(wish));
  const bounded = start !== startDepth(exitsBetween(exits, range.min, range.max), range.default);
  const top = underLoad(allowed, lowest, start, shedding(load, plan.priority));
  const reason: DepthReason = top < start ? "load" : bounded ? "requested" : "plan";
  return allowed
    .filter((exit) => exit <= top)
    .reverse()
    .map((depth) => ({
      depth,
      reason: depth === top ? reason : "budget",
      keep: keptBudget(plan.monthly_budget_micro_usd, depth, lowest, start),
    }));
}

/** Exits within the request's own bounds. */
function exitsWithin(exits: ExitSet, wish: FathomRequest | undefined): number[] {
  const { min_depth: low = 1, max_depth: high = Number.POSITIVE_INFINITY } = wish ?? {};
  if (low > high) throw invalidDepth("fathom.min_depth", `${low} is above max_depth ${high}`);
  const within = exitsBetween(exits, low, high);
  if (within.length > 0) return within;
  throw invalidDepth(boundParam(wish), `no exit lies within the bounds; exits are ${exits.join(", ")}`);
}

/** Deepest allowed exit that is not above the plan's default; the shallowest when all are. */
function startDepth(allowed: readonly number[], preferred: number): number | undefined {
  return allowed.findLast((exit) => exit <= preferred) ?? allowed[0];
}

/** How much of the way to the shallowest exit load takes: 0 nothing, 1 all. */
function shedding(load: number, priority: number): number {
  const from = FIRST_SHED_LOAD + priority * 0.05;
  return Math.min(1, Math.max(0, (load - from) / (1 - from)));
}

function underLoad(allowed: readonly number[], lowest: number, start: number, shed: number): number {
  const target = start - shed * (start - lowest);
  return allowed.findLast((exit) => exit <= target) ?? lowest;
}

function keptBudget(budget: number, depth: number, lowest: number, start: number): number {
  return start === lowest ? 0 : Math.floor((budget * KEPT_SHARE * (depth - lowest)) / (start - lowest));
}

function boundParam(wish: FathomRequest | undefined): string {
  if (wish?.min_depth !== undefined) return "fathom.min_depth";
  return wish?.max_depth === undefined ? "fathom.depth" : "fathom.max_depth";
}

function invalidDepth(param: string, problem: string): ApiError {
  return new ApiError("invalid_depth", `'${param}': ${problem}`, { param });
}

function notAllowed({ planName, plan, exits }: DepthInput, param: string): ApiError {
  const { min, max } = layerRange(plan, fullDepth(exits));
  const reachable = exitsBetween(exits, min, max);
  const offer = reachable.length > 0 ? `exits ${reachable.join(", ")}` : `none of the exits ${exits.join(", ")}`;
  const message = `'${param}': plan '${planName}' runs ${min} to ${max} layers, which allows ${offer}`;
  return new ApiError("depth_not_allowed", message, { param });
}
