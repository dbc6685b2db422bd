import { ApiError } from "@fathom/shared";
import type { Context } from "hono";
import type { AppEnv } from "../app-env.ts";
import { verifyHeartbeat } from "../fleet/verify-heartbeat.ts";
import { settingsOf } from "../settings.ts";

/**
 * `POST /internal/fleet/heartbeat`: a service says that it is there, how busy it is, or that it leaves.
 * @throws ApiError `invalid_api_key` and others of `verifyHeartbeat`, `invalid_request` for a word that is older than its last,
 *   `overloaded` when the pool has no room.
 */
export async function heartbeat(c: Context<AppEnv>): Promise<Response> {
  const { serviceSecret } = settingsOf(c.env);
  const body = await c.req.arrayBuffer();
  const beat = await verifyHeartbeat(c.req.header("authorization"), body, serviceSecret, Date.now() / 1000);
  const taken = await c.env.FLEET.getByName(beat.pool).heartbeat(beat);
  switch (taken) {
    case "old": {
      const message = "'sent_at': must be later than that of the service's last heartbeat";
      throw new ApiError("invalid_request", message, { param: "sent_at" });
    }
    case "full":
      throw new ApiError("overloaded", "The pool has no room for another service.", { retryAfter: 60 });
    case "taken":
      // Two lines a second and service would say nothing; what is refused is logged.
      c.var.log.defer();
      return c.body(null, 204);
    default:
      return taken satisfies never;
  }
}
