import { DepthProfile, ExitSet, FathomRequest } from "@fathom/shared";
import type { Context } from "hono";
import { z } from "zod";
import type { AppEnv, Customer } from "../app-env.ts";
import { namedModel } from "../fleet/named-model.ts";
import { poolLoad } from "../fleet/pool-load.ts";
import { readyServices } from "../fleet/pool-view.ts";
import { readJson } from "../http/read-json.ts";
import { limitsOf } from "../ledger/limits-of.ts";
import { answerLimit } from "../policy/answer-limit.ts";
import { explainDepth } from "../policy/explain.ts";
import type { Plan, Plans } from "../policy/plan.ts";
import { dialOf, mergeDial, parseModelName } from "../policy/virtual-model.ts";
import { knownPlan } from "./known-plan.ts";

/** What is to be explained. What is left out is taken from the pool as it is now, and from the tenant's account. */
export const Situation = z.strictObject({
  model: z.string().min(1).max(256).default("fathom"),
  exits: ExitSet.optional(),
  profile: DepthProfile.optional(),
  load: z.number().min(0).max(1000).optional(),
  remaining_micro_usd: z.int().min(0).optional(),
  prompt_tokens: z.int().min(1).max(1_000_000).default(256),
  max_tokens: z.int().min(1).max(1_000_000).optional(),
  fathom: FathomRequest.optional(),
});
type Situation = z.infer<typeof Situation>;

/** Of `POST /admin/policy/explain`. */
export const PlanSituation = Situation.extend({ plan: z.string() });

/** `POST /v1/policy/explain`: why a request of the caller's would get its depth, now or in the situation that is given. */
export async function explainOwnPolicy(c: Context<AppEnv>): Promise<Response> {
  const situation = await readJson(c, Situation);
  const { plan, planName, tenant } = c.var.customer;
  const remaining = situation.remaining_micro_usd ?? (await budgetLeft(c, { plan, tenant }));
  return c.json(await explain(c, planName, plan, { ...situation, remaining_micro_usd: remaining }));
}

/** `POST /admin/policy/explain`: the same for a plan by name; without a budget the plan's whole month remains. */
export function explainPolicy(plans: Plans) {
  return async (c: Context<AppEnv>): Promise<Response> => {
    const { plan: planName, ...situation } = await readJson(c, PlanSituation);
    return c.json(await explain(c, planName, knownPlan(plans, planName), situation));
  };
}

async function explain(c: Context<AppEnv>, planName: string, plan: Plan, situation: Situation) {
  const { name, exits, profile, load, contextLength } = await surroundings(c, situation);
  return explainDepth({
    planName,
    plan,
    exits,
    profile,
    load,
    wish: mergeDial(situation.model, dialOf(name, exits, plan), situation.fathom),
    worst: {
      promptTokens: situation.prompt_tokens,
      maxTokens: answerLimit(situation.max_tokens, plan.max_tokens, contextLength).atMost,
      contextLength,
      price: plan.price_nano_usd_per_layer_token,
    },
    remaining: situation.remaining_micro_usd ?? plan.monthly_budget_micro_usd,
  });
}

/** The pool as it is, where the situation does not say otherwise: with exits and load of its own it needs no pool. */
async function surroundings(c: Context<AppEnv>, { model, exits, profile, load }: Situation) {
  if (exits !== undefined && load !== undefined) {
    const name = parseModelName(model, []) ?? { base: model, choice: undefined };
    return { name, exits, profile, load, contextLength: Number.MAX_SAFE_INTEGER };
  }
  const { candidates, ...name } = namedModel(await readyServices(c.env), model);
  const [{ service }] = candidates;
  const { fathom } = service.model;
  return {
    name,
    exits: exits ?? fathom.exits.map(({ depth }) => depth),
    profile: profile ?? (exits === undefined ? fathom.profile : undefined),
    load: load ?? poolLoad(candidates),
    contextLength: fathom.context_length,
  };
}

async function budgetLeft(c: Context<AppEnv>, { plan, tenant }: Pick<Customer, "plan" | "tenant">): Promise<number> {
  return await c.env.LEDGER.getByName(tenant).remaining(limitsOf(plan));
}
