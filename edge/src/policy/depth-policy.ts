import {
  ApiError,
  type DepthProfile,
  type DepthReason,
  type ExitSet,
  exitsBetween,
  type FathomRequest,
  fullDepth,
  requireExit,
} from "@fathom/shared";
import { type ExitValue, exitValues } from "./exit-values.ts";
import { layerRange, type Plan } from "./plan.ts";

/** Everything that a depth decision depends on, save the budget that remains: the ledger knows that one. */
export interface DepthInput {
  planName: string;
  plan: Plan;
  /** Exits of the checkpoint, ascending. */
  exits: ExitSet;
  /** What the exits are worth and how long they take, where it was measured. */
  profile?: DepthProfile | undefined;
  /** Load of the services that may run the request: 0 idle, 1 full, 2 when as many wait as run. */
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

/** What became of one exit. All but the offered ones are left out for the reason named. */
export type ExitVerdict =
  | "offered"
  /** Below or above the plan's range. */
  | "plan"
  /** Outside the request's own bounds, or deeper than what it asked for. */
  | "bounds"
  /** A shallower exit is as good by the profile. */
  | "no_better"
  /** Deeper than the plan's default, and nobody asked for it. */
  | "above_default"
  /** Too slow at the present load. */
  | "load";

/** A decision, with all that led to it. */
export interface DepthDecision {
  /** Deepest first, never empty. */
  offers: DepthOffer[];
  /** Every exit of the checkpoint, ascending. */
  exits: { depth: number; verdict: ExitVerdict }[];
  /** How much of the way to the shallowest exit the load takes: 0 nothing, 1 all. */
  shedding: number;
}

/** Share of the monthly budget that is kept for shallower answers, at the plan's deepest offer. */
const KEPT_SHARE = 0.1;

/** Load at which a plan of priority 0 begins to lose depth; four steps of priority double it. */
const FIRST_SHED_LOAD = 0.5;
const STEPS_TO_DOUBLE = 4;

/**
 * The loads between which a plan loses its depth, and from which on it is refused. A plan is refused where one four steps above
 * begins to lose depth, so that traffic of lower plans cannot take the depth of higher ones: priority 0 is refused when the
 * services are full, 4 when as many wait as run, and 9 keeps its depth longer than that.
 */
export function loadLimits(priority: number): { from: number; to: number; refused: number } {
  const from = FIRST_SHED_LOAD * 2 ** (priority / STEPS_TO_DOUBLE);
  return { from, to: 1.5 * from, refused: 2 * from };
}

/**
 * The depths that a request may run at, deepest first; the ledger takes the first one that the budget covers. Pure.
 *
 * - A numeric wish must be an exit and lie in the plan's range: it is granted as asked or refused, never moved to another
 *   side of the range, and load does not touch it. Only a budget that cannot cover it lowers it, since a shallower answer
 *   is better than none; a `min_depth` forbids that too.
 * - "auto" or no wish starts at the plan's default, moved into `min_depth`..`max_depth`. Load lowers it: between the plan's
 *   `loadLimits` the time that a token may take falls linearly from the start's to that of the shallowest allowed exit. Budget lowers it: each deeper offer must leave more of the
 *   budget untouched, so that the last tenth of it is stretched over shallower answers. An exit that is no better than a
 *   shallower one by the profile is passed over, unless the plan and the bounds leave nothing else.
 * - The depth caps a request whatever its exit policy: confident tokens stop below it, drafts are verified at it.
 * - No offer lies outside the plan's range or the request's bounds.
 *
 * @throws ApiError `invalid_depth` when no exit fits the wish (names the exits), `depth_not_allowed` when the plan's range
 *   does not reach it (names the range), `overloaded` when the load has passed what the plan's shallowest exit is good for.
 */
export function decideDepth(input: DepthInput): DepthDecision {
  const { plan, exits, profile, load, wish } = input;
  const range = layerRange(plan, fullDepth(exits));
  const wanted = exitsWithin(exits, wish);
  const allowed = exitsBetween(wanted, range.min, range.max);
  const limits = loadLimits(plan.priority);
  const shed = Math.min(1, Math.max(0, (load - limits.from) / (limits.to - limits.from)));
  const outside = (depth: number): ExitVerdict => (depth < range.min || depth > range.max ? "plan" : "bounds");
  const decision = (offers: DepthOffer[], verdictOf: (depth: number) => ExitVerdict): DepthDecision => ({
    offers,
    exits: exits.map((depth) => ({ depth, verdict: allowed.includes(depth) ? verdictOf(depth) : outside(depth) })),
    shedding: shed,
  });

  if (typeof wish?.depth === "number") {
    const depth = requireExit(exits, wish.depth);
    if (!wanted.includes(depth)) throw invalidDepth("fathom.depth", `${depth} lies outside min_depth and max_depth`);
    if (!allowed.includes(depth)) throw notAllowed(input, "fathom.depth");
    if (load >= limits.refused) throw overloaded();
    const shallower = allowed.filter((exit) => exit < depth).reverse();
    const offers: DepthOffer[] = [
      { depth, reason: "requested", keep: 0 },
      ...shallower.map((exit): DepthOffer => ({ depth: exit, reason: "budget", keep: 0 })),
    ];
    return decision(offers, (exit) => (exit <= depth ? "offered" : "bounds"));
  }

  const values = exitValues(exits, profile);
  const useful = worthwhile(allowed, values);
  const [lowest] = useful;
  const start = startDepth(useful, range.default);
  if (lowest === undefined || start === undefined) throw notAllowed(input, boundParam(wish));
  if (load >= limits.refused) throw overloaded();
  const unbounded = worthwhile(exitsBetween(exits, range.min, range.max), values);
  const bounded = start !== startDepth(unbounded, range.default);
  const top = underLoad(useful, timesOf(values), lowest, start, shed);
  const reason: DepthReason = top < start ? "load" : bounded ? "requested" : "plan";
  const offers = useful
    .filter((exit) => exit <= top)
    .reverse()
    .map((depth) => ({
      depth,
      reason: depth === top ? reason : ("budget" as const),
      keep: keptBudget(plan.monthly_budget_micro_usd, depth, lowest, start),
    }));
  return decision(offers, (exit) => {
    if (!useful.includes(exit)) return "no_better";
    if (exit > start) return "above_default";
    return exit > top ? "load" : "offered";
  });
}

/** The offers alone; see {@link decideDepth}. */
export function depthOffers(input: DepthInput): DepthOffer[] {
  return decideDepth(input).offers;
}

/** Exits within the request's own bounds. */
function exitsWithin(exits: ExitSet, wish: FathomRequest | undefined): number[] {
  const { min_depth: low = 1, max_depth: high = Number.POSITIVE_INFINITY } = wish ?? {};
  if (low > high) throw invalidDepth("fathom.min_depth", `${low} is above max_depth ${high}`);
  const within = exitsBetween(exits, low, high);
  if (within.length > 0) return within;
  throw invalidDepth(boundParam(wish), `no exit lies within the bounds; exits are ${exits.join(", ")}`);
}

/** Those that are worth their time; all of them when none is. */
function worthwhile(allowed: readonly number[], values: readonly ExitValue[]): readonly number[] {
  const pointless = new Set(values.filter((value) => value.pointless).map(({ depth }) => depth));
  const useful = allowed.filter((depth) => !pointless.has(depth));
  return useful.length > 0 ? useful : allowed;
}

/** Deepest allowed exit that is not above the plan's default; the shallowest when all are. */
function startDepth(allowed: readonly number[], preferred: number): number | undefined {
  return allowed.findLast((exit) => exit <= preferred) ?? allowed[0];
}

function timesOf(values: readonly ExitValue[]): (depth: number) => number {
  const times = new Map(values.map(({ depth, time }) => [depth, time]));
  return (depth) => times.get(depth) ?? 0;
}

/** The deepest exit whose token takes no longer than the load leaves. */
function underLoad(
  allowed: readonly number[],
  time: (depth: number) => number,
  lowest: number,
  start: number,
  shed: number,
): number {
  const target = time(start) - shed * (time(start) - time(lowest));
  return allowed.findLast((exit) => exit <= start && time(exit) <= target) ?? lowest;
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

function overloaded(): ApiError {
  return new ApiError("overloaded", "Too many requests are waiting; try again shortly.", { retryAfter: 1 });
}

function notAllowed({ planName, plan, exits }: DepthInput, param: string): ApiError {
  const { min, max } = layerRange(plan, fullDepth(exits));
  const reachable = exitsBetween(exits, min, max);
  const offer = reachable.length > 0 ? `exits ${reachable.join(", ")}` : `none of the exits ${exits.join(", ")}`;
  const message = `'${param}': plan '${planName}' runs ${min} to ${max} layers, which allows ${offer}`;
  return new ApiError("depth_not_allowed", message, { param });
}
