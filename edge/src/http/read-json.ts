import { ApiError, fromZodError } from "@fathom/shared";
import type { Context } from "hono";
import { bodyLimit } from "hono/body-limit";
import type { z } from "zod";

/** Largest request body, bytes. */
export const MAX_BODY_BYTES = 1024 * 1024;

/** Refuses larger bodies, whether they announce their length or come in chunks. */
export const limitBody = bodyLimit({
  maxSize: MAX_BODY_BYTES,
  onError: () => {
    throw new ApiError("body_too_large", `The request body is larger than ${MAX_BODY_BYTES} bytes.`);
  },
});

/**
 * The request's body as `schema` describes it; fields that it does not name are dropped. The content type is required: a
 * browser sends other types across origins unasked.
 * @throws ApiError `invalid_json`, or `invalid_request` that names the first offending field.
 */
export async function readJson<T>(c: Context, schema: z.ZodType<T>): Promise<T> {
  const type = c.req.header("content-type")?.split(";")[0]?.trim().toLowerCase();
  if (type !== "application/json") {
    throw new ApiError("invalid_request", "'content-type': must be application/json", { param: "content-type" });
  }
  const result = schema.safeParse(parse(await c.req.text()));
  if (!result.success) throw fromZodError(result.error);
  return result.data;
}

function parse(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ApiError("invalid_json", `The request body is not JSON: ${reason}`, { cause: error });
  }
}
