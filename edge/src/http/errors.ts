import { ApiError } from "@fathom/shared";
import type { Context } from "hono";
import type { ContentfulStatusCode } from "hono/utils/http-status";
import type { AppEnv } from "../app-env.ts";

/** What a client sees of an error: an ApiError as it is, anything else as `internal_error` without its text. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  return new ApiError("internal_error", "Something went wrong on our side.", { cause: error });
}

/** Answers with an error, OpenAI-shaped, with the headers that belong to its code. Failures of ours go to the log. */
export function respondWithError(c: Context<AppEnv>, error: ApiError): Response {
  c.get("log").add({ error: error.code });
  if (error.status >= 500 && error.cause !== undefined) {
    const { requestId } = c.var;
    console.error(JSON.stringify({ requestId, error: error.code, cause: describe(error.cause) }));
  }
  if (error.retryAfter !== undefined) c.header("retry-after", String(Math.max(1, Math.ceil(error.retryAfter))));
  if (error.status === 401) c.header("www-authenticate", "Bearer");
  return c.json(error.toBody(), error.status as ContentfulStatusCode);
}

function describe(cause: unknown): string {
  return cause instanceof Error ? (cause.stack ?? cause.message) : String(cause);
}
