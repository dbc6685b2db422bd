import { ApiError } from "@fathom/shared";
import { createMiddleware } from "hono/factory";
import type { AppEnv } from "../app-env.ts";
import type { Plans } from "../policy/plan.ts";
import { matchesDigest, sha256 } from "./api-key.ts";
import { bearerToken } from "./bearer.ts";
import { findKeyHolder } from "./key-store.ts";

/**
 * Lets in requests with a valid API key and sets their `customer`.
 * @throws (the middleware) ApiError `missing_api_key`, `invalid_api_key`, `permission_denied` when the key's plan is gone.
 */
export function requireApiKey(plans: Plans) {
  return createMiddleware<AppEnv>(async (c, next) => {
    const token = bearerToken(c.req.header("authorization"));
    const holder = await c.var.timing.measure("auth", () => findKeyHolder(c.env.KEYS, token));
    if (!holder) throw new ApiError("invalid_api_key", "The API key is wrong.");
    const plan = plans.get(holder.plan);
    if (!plan) throw new ApiError("permission_denied", `The plan '${holder.plan}' of this key is no longer offered.`);
    c.set("customer", { tenant: holder.tenant, keyId: holder.keyId, planName: holder.plan, plan });
    c.var.log.add({ tenant: holder.tenant, plan: holder.plan });
    await next();
  });
}

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
