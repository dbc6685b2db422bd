import { ApiError } from "@fathom/shared";
import type { Plan, Plans } from "../policy/plan.ts";

/** A plan by the name that a request gives. @throws ApiError `invalid_request` that names `plan`. */
export function knownPlan(plans: Plans, name: string): Plan {
  const plan = plans.get(name);
  if (plan) return plan;
  const known = [...plans.keys()].join(", ");
  const message = `'plan': there is no plan '${name.slice(0, 64)}'; there are ${known}`;
  throw new ApiError("invalid_request", message, { param: "plan" });
}
