import { createHash } from "node:crypto";
import { ApiError } from "@fathom/shared";
import type { MiddlewareHandler } from "hono";
import type { Caller } from "./caller.ts";
import { readFailure } from "./read-json.ts";

/**
 * Refuses a body other than the one that the caller's token names. Reads it; whoever comes after gets it all the same.
 * @throws (the middleware) ApiError `invalid_api_key`, `cancelled` when the body ends early.
 */
export const requireBoundBody: MiddlewareHandler<{ Variables: { caller: Caller } }> = async (c, next) => {
  const { bodySha256 } = c.get("caller");
  if (bodySha256 !== undefined) {
    const bytes = await c.req.arrayBuffer().catch((error: unknown) => {
      throw readFailure(error);
    });
    if (createHash("sha256").update(Buffer.from(bytes)).digest("hex") !== bodySha256) {
      throw new ApiError("invalid_api_key", "The request is not authorised: the token is for another body.");
    }
  }
  await next();
};
