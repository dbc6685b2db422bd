import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { parseArgs } from "node:util";
import shippedPlans from "@fathom/edge/plans.json" with { type: "json" };
import { type Explanation, explainDepth } from "@fathom/edge/policy/explain.ts";
import { parsePlans } from "@fathom/edge/policy/plan.ts";
import {
  ApiError,
  type DepthProfile,
  type ExitSet,
  FathomRequest,
  fromZodError,
  Manifest,
  parseExits,
} from "@fathom/shared";

const HELP = `Explains which depth a request gets, and why, without a running service.

Usage: npm run policy -- --plan NAME [options]

Options:
  --plan NAME          plan of the caller
  --plans FILE         plan configuration (default: the shipped one)
  --checkpoint DIR     take exits and depth profile from this checkpoint
  --exits LIST         exits, such as 12,18,24,30 (default: 12,18,24,30)
  --load N             load of the pool: 0 idle, 1 full, 2 when as many wait as run (default: 0)
  --budget N           micro-USD that remain (default: the plan's month)
  --prompt-tokens N    default: 256
  --max-tokens N       default: the plan's
  --fathom JSON        the request's "fathom" field, such as '{"min_depth": 18}'
  --json               the explanation as JSON
  --help               this text

Example: npm run policy -- --plan pro --load 0.8`;

async function main(): Promise<void> {
  const { values } = parseArgs({
    options: {
      plan: { type: "string" },
      plans: { type: "string" },
      checkpoint: { type: "string" },
      exits: { type: "string" },
      load: { type: "string", default: "0" },
      budget: { type: "string" },
      "prompt-tokens": { type: "string", default: "256" },
      "max-tokens": { type: "string" },
      fathom: { type: "string" },
      json: { type: "boolean", default: false },
      help: { type: "boolean", short: "h", default: false },
    },
  });
  if (values.help) {
    console.log(HELP);
    return;
  }
  const plans = values.plans
    ? parsePlans(JSON.parse(await readFile(values.plans, "utf8")), values.plans)
    : parsePlans(shippedPlans, "plans.json");
  const plan = plans.get(values.plan ?? "");
  if (values.plan === undefined || !plan) throw new Error(`--plan takes one of ${[...plans.keys()].join(", ")}`);
  const { exits, profile } = await checkpoint(values.checkpoint, values.exits);
  const explanation = explainDepth({
    planName: values.plan,
    plan,
    exits,
    profile,
    load: number("--load", values.load, 0, 1000),
    wish: wish(values.fathom),
    remaining: values.budget === undefined ? plan.monthly_budget_micro_usd : whole("--budget", values.budget),
    worst: {
      promptTokens: whole("--prompt-tokens", values["prompt-tokens"]),
      maxTokens: Math.min(plan.max_tokens, whole("--max-tokens", values["max-tokens"] ?? String(plan.max_tokens))),
      contextLength: Number.MAX_SAFE_INTEGER,
      price: plan.price_nano_usd_per_layer_token,
    },
  });
  console.log(values.json ? JSON.stringify(explanation, undefined, 2) : asText(explanation));
}

async function checkpoint(
  dir: string | undefined,
  list: string | undefined,
): Promise<{ exits: ExitSet; profile: DepthProfile | undefined }> {
  if (dir === undefined) return { exits: parseExits(list ?? "12,18,24,30"), profile: undefined };
  const { exits, profile } = Manifest.parse(JSON.parse(await readFile(join(dir, "manifest.json"), "utf8")));
  return { exits: list === undefined ? exits : parseExits(list), profile };
}

function wish(text: string | undefined): FathomRequest | undefined {
  if (text === undefined) return undefined;
  const result = FathomRequest.safeParse(JSON.parse(text));
  if (!result.success) throw fromZodError(result.error);
  return result.data;
}

function number(option: string, text: string, min: number, max: number): number {
  const value = text.trim() === "" ? Number.NaN : Number(text);
  if (value >= min && value <= max) return value;
  throw new Error(`${option} takes a number from ${min} to ${max}, not '${text}'`);
}

function whole(option: string, text: string): number {
  if (/^\d{1,15}$/.test(text)) return Number(text);
  throw new Error(`${option} takes a whole number, not '${text}'`);
}

function asText({ plan, load, shedding, remaining_micro_usd, exits, offers, chosen }: Explanation): string {
  const lines = [
    `plan ${plan.name}: ${plan.min} to ${plan.max} layers, ${plan.default} without a wish, priority ${plan.priority}`,
    `load ${load.toFixed(2)}: takes ${(100 * shedding).toFixed(0)}% of the way to the shallowest exit`,
    `budget left: ${remaining_micro_usd} micro-USD`,
    "",
    ...exits.map(({ depth, why }) => `  ${String(depth).padStart(4)}  ${why}`),
    "",
    ...offers.map(
      ({ depth, reason, cost_micro_usd: cost, keep_micro_usd: keep, covered }) =>
        `  ${String(depth).padStart(4)}  costs ${cost} at most${keep > 0 ? `, ${keep} must remain` : ""}: ` +
        `${covered ? "covered" : "not covered"} (${reason})`,
    ),
    "",
    chosen ? `chosen: ${chosen.depth} layers (${chosen.reason})` : "refused: the budget covers no offer (402)",
  ];
  return lines.join("\n");
}

await main().catch((error: unknown) => {
  console.error(error instanceof ApiError || error instanceof Error ? error.message : error);
  process.exitCode = 2;
});
