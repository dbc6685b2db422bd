import type { Context } from "hono";
import type { AppEnv } from "../../app-env.ts";
import type { Origin } from "../../directory/audit-log.ts";

/** Who asks: whoever has the administrator's secret, of which there is one. */
export function originOf(c: Context<AppEnv>): Origin {
  return { actor: "admin", requestId: c.var.requestId };
}
