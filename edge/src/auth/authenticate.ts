import { ApiError } from "@fathom/shared";
import { createMiddleware } from "hono/factory";
import type { AppEnv } from "../app-env.ts";
import { invalidKey, refusalError } from "../ledger/refusal-error.ts";
import type { Plans } from "../policy/plan.ts";
import { matchesDigest, sha256 } from "./api-key.ts";
import { bearerToken } from "./bearer.ts";
import { findKeyHolder, type Scope } from "./key-store.ts";

/**
 * Lets in requests with a valid API key and sets their `customer`. Unknown, wrong and expired keys all look alike.
 * @throws (the middleware) ApiError `missing_api_key`, `invalid_api_key`, `permission_denied` when the key lacks the scope or
 * its plan is gone.
 */
export function requireApiKey(plans: Plans, scope: Scope) {
  return createMiddleware<AppEnv>(async (c, next) => {
    const token = bearerToken(c.req.header("authorization"));
    const holder = await c.var.timing.measure("auth", () => findKeyHolder(c.env.KEYS, token, Date.now()));
    if (!holder) throw invalidKey();
    const { tenant, keyId, plan: planName } = holder;
    c.var.log.add({ tenant, plan: planName });
    if (!holder.scopes.includes(scope)) {
      throw new ApiError("permission_denied", `This key is not for this: it lacks the scope '${scope}'.`);
    }
    const offered = plans.get(planName);
    if (!offered) throw new ApiError("permission_denied", `The plan '${planName}' of this key is no longer offered.`);
    const budget = holder.monthly_budget ?? offered.monthly_budget_micro_usd;
    c.set("customer", { tenant, keyId, planName, plan: { ...offered, monthly_budget_micro_usd: budget } });
    await next();
  });
}

/**
 * Asks the tenant's ledger whether the key may be used: for what does not reserve anything there, which asks it itself.
 * @throws (the middleware) ApiError `invalid_api_key`, `permission_denied`, `upstream_unavailable`.
 */
export const requireAccess = createMiddleware<AppEnv>(async (c, next) => {
  const { tenant, keyId, planName } = c.var.customer;
  const ask = async () => await c.env.LEDGER.getByName(tenant).barred(keyId);
  const barred = await c.var.timing.measure("ledger", ask).catch((cause: unknown) => {
    throw new ApiError("upstream_unavailable", "The account cannot be reached.", { retryAfter: 2, cause });
  });
  if (barred) throw refusalError(barred, planName);
  await next();
});

/**
 * Lets in requests with the administrator's secret.
 * @throws (the middleware) ApiError `missing_api_key`, `invalid_api_key`.
 */
export const requireAdmin = createMiddleware<AppEnv>(async (c, next) => {
  const token = bearerToken(c.req.header("authorization"));
  if (!(await matchesDigest(token, await sha256(c.env.ADMIN_SECRET)))) {
    throw new ApiError("invalid_api_key", "The administrator's secret is wrong.");
  }
  await next();
});
