import { ApiError } from "@fathom/shared";
import type { Context } from "hono";
import { z } from "zod";
import type { AppEnv } from "../app-env.ts";
import { issueKey, Tenant } from "../auth/key-store.ts";
import { readJson } from "../http/read-json.ts";
import type { Plans } from "../policy/plan.ts";

const KeyRequest = z.strictObject({ tenant: Tenant, plan: z.string() });

/** `POST /admin/keys`: makes a key for a tenant. The answer is the only place where the key is ever shown. */
export function createKey(plans: Plans) {
  return async (c: Context<AppEnv>): Promise<Response> => {
    const { tenant, plan } = await readJson(c, KeyRequest);
    if (!plans.has(plan)) {
      const known = [...plans.keys()].join(", ");
      throw new ApiError("invalid_request", `'plan': there is no plan '${plan}'; there are ${known}`, {
        param: "plan",
      });
    }
    const { id, key } = await issueKey(c.env.KEYS, { tenant, plan });
    c.get("log").add({ tenant, plan });
    return c.json({ id, key, tenant, plan }, 201);
  };
}
