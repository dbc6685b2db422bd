import { Depth } from "@fathom/shared";
import { z } from "zod";

/** A share of the full depth, so that one plan fits checkpoints of any size. */
const Share = z.string().regex(/^(100|[1-9]?\d)%$/, { error: 'must be a share from "0%" to "100%"' });

const PlanDepth = z.union([Depth, Share], { error: 'must be a number of layers or a share such as "60%"' });

const DepthRange = z
  .strictObject({
    min: PlanDepth,
    max: PlanDepth,
    /** Where a request without a wish runs. */
    default: PlanDepth,
  })
  .superRefine(({ min, max, default: preferred }, ctx) => {
    const units = new Set([typeof min, typeof max, typeof preferred]);
    if (units.size > 1) {
      ctx.addIssue({ code: "custom", message: "min, max and default must all be layers or all be shares" });
      return;
    }
    if (amount(min) > amount(max)) ctx.addIssue({ code: "custom", path: ["min"], message: "must not be above max" });
    if (amount(preferred) < amount(min) || amount(preferred) > amount(max)) {
      ctx.addIssue({ code: "custom", path: ["default"], message: "must lie between min and max" });
    }
  });

/** A customer's tier. */
export const Plan = z.strictObject({
  depth: DepthRange,
  price_nano_usd_per_layer_token: z.int().min(0).max(1_000_000_000),
  /** Price of a batch's layer-token, percent of the above. */
  batch_price_percent: z.int().min(0).max(100).optional(),
  /** Requests admitted in any 60 seconds, per tenant. */
  requests_per_minute: z.int().min(1).max(100_000),
  /** Requests in flight at once, per tenant. */
  concurrency: z.int().min(1).max(10_000),
  /** What a tenant may spend in a calendar month (UTC). */
  monthly_budget_micro_usd: z.int().min(0),
  /** What a tenant may spend in a day (UTC); without it, the month's budget alone counts. */
  daily_budget_micro_usd: z.int().min(0).optional(),
  /** Whether an answer is shortened when the budget does not cover it at any depth. */
  clip_max_tokens: z.boolean().optional(),
  /** Ledgers that share the work of one tenant (1): for tenants with more requests than one ledger serves. */
  ledger_shards: z.int().min(1).max(64).optional(),
  /** 0 to 9: the higher, the longer the plan keeps its depth under load. */
  priority: z.int().min(0).max(9),
  /** Longest answer, tokens; a longer wish is clipped. */
  max_tokens: z.int().min(1).max(1_000_000),
});
export type Plan = z.infer<typeof Plan>;

const PlanName = z
  .string()
  .regex(/^[a-z][a-z0-9-]{0,31}$/, { error: "a plan's name is lower-case letters, digits, -" });

const Plans = z.record(PlanName, Plan).refine((plans) => Object.keys(plans).length > 0, {
  error: "must hold at least one plan",
});

export type Plans = ReadonlyMap<string, Plan>;

/**
 * Checks a plan configuration.
 * @param value parsed JSON: plans by name
 * @param source where it comes from, for the message
 * @throws Error that names every offending field.
 */
export function parsePlans(value: unknown, source: string): Plans {
  const result = Plans.safeParse(value);
  if (result.success) return new Map(Object.entries(result.data));
  const problems = result.error.issues.map((issue) => `  ${issue.path.join(".") || "(top)"}: ${messageOf(issue)}`);
  throw new Error(`${source} is not a valid plan configuration:\n${problems.join("\n")}`);
}

function messageOf(issue: z.core.$ZodIssue): string {
  return issue.code === "invalid_key" ? (issue.issues[0]?.message ?? issue.message) : issue.message;
}

/** A plan's depths for one checkpoint, in layers. */
export interface LayerRange {
  min: number;
  max: number;
  default: number;
}

/**
 * A plan's depth range in layers. Shares are rounded into the range (min up, max and default down), so that rounding
 * never lets a plan out of what it says.
 * @param layers full depth of the checkpoint
 */
export function layerRange(plan: Plan, layers: number): LayerRange {
  const { min, max, default: preferred } = plan.depth;
  const range = { min: inLayers(min, layers, Math.ceil), max: inLayers(max, layers, Math.floor) };
  return { ...range, default: Math.max(range.min, inLayers(preferred, layers, Math.floor)) };
}

function inLayers(depth: number | string, layers: number, round: (value: number) => number): number {
  return typeof depth === "number" ? depth : round((amount(depth) * layers) / 100);
}

function amount(depth: number | string): number {
  return typeof depth === "number" ? depth : Number.parseInt(depth, 10);
}
