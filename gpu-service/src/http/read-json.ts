import { ApiError } from "@fathom/shared";
import type { MiddlewareHandler } from "hono";
import { bodyLimit } from "hono/body-limit";

/** Largest request body, bytes. */
export const MAX_BODY_BYTES = 1024 * 1024;

const limit = bodyLimit({
  maxSize: MAX_BODY_BYTES,
  onError: () => {
    throw new ApiError("body_too_large", `The request body is larger than ${MAX_BODY_BYTES} bytes.`);
  },
});

/** Refuses larger bodies, whether they announce their length or come in chunks. */
export const limitBody: MiddlewareHandler = async (c, next) => {
  try {
    return await limit(c, next);
  } catch (error) {
    throw readFailure(error);
  }
};

/**
 * The JSON value in a request's body. The content type is required: a browser sends other types across origins unasked.
 * @throws ApiError `invalid_request` for another content type, `invalid_json`.
 */
export async function readJson(request: {
  header(name: string): string | undefined;
  text(): Promise<string>;
}): Promise<unknown> {
  const type = request.header("content-type")?.split(";")[0]?.trim().toLowerCase();
  if (type !== "application/json") {
    throw new ApiError("invalid_request", "'content-type': must be application/json", { param: "content-type" });
  }
  const text = await request.text().catch((error: unknown) => {
    throw readFailure(error);
  });
  try {
    return JSON.parse(text);
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new ApiError("invalid_json", `The request body is not JSON: ${reason}`, { cause: error });
  }
}

/** Reading fails when the client goes away before it has sent everything. */
export function readFailure(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  return new ApiError("cancelled", "The request ended before its body was complete.", { cause: error });
}
