import type { Plan } from "./plan.ts";

/** The plan of the tests. */
export const PLAN: Plan = {
  depth: { min: 12, max: 24, default: 24 },
  price_nano_usd_per_layer_token: 1000,
  requests_per_minute: 10,
  concurrency: 10,
  monthly_budget_micro_usd: 100_000,
  priority: 0,
  max_tokens: 100,
};
