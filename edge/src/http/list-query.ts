import { ApiError, fromZodError } from "@fathom/shared";
import type { Context } from "hono";
import { z } from "zod";

/** OpenAI's cursor: what comes after an id, newest first. @throws ApiError `invalid_request` that names the parameter. */
export function listQuery(c: Context, defaultLimit: number, maxLimit: number): { limit: number; after?: string } {
  if ((c.req.query("order") ?? "desc") !== "desc") {
    throw new ApiError("invalid_request", "'order': must be \"desc\": the newest come first", { param: "order" });
  }
  const Query = z.object({
    limit: z.coerce.number().int().min(1).max(maxLimit).default(defaultLimit),
    after: z.string().max(256).optional(),
  });
  const result = Query.safeParse({ limit: c.req.query("limit"), after: c.req.query("after") });
  if (!result.success) throw fromZodError(result.error);
  const { limit, after } = result.data;
  return after === undefined ? { limit } : { limit, after };
}

/** A page as OpenAI's clients read it. */
export function listPage<T extends { id: string }>(data: readonly T[], more: boolean) {
  return {
    object: "list",
    data,
    first_id: data[0]?.id ?? null,
    last_id: data.at(-1)?.id ?? null,
    has_more: more,
  };
}
