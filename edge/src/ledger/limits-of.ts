import type { Plan } from "../policy/plan.ts";
import type { Limits } from "./ledger.ts";

/** What a plan permits, as the ledger counts it. */
export function limitsOf(plan: Plan): Limits {
  return {
    requestsPerMinute: plan.requests_per_minute,
    concurrency: plan.concurrency,
    monthlyBudget: plan.monthly_budget_micro_usd,
    dailyBudget: plan.daily_budget_micro_usd,
  };
}
