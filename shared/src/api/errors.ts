import { z } from "zod";

/** Every error code that the edge or the service may put on the wire. One enum for both, so a client handles one list. */
export const ErrorCode = z.enum([
  "invalid_json",
  "invalid_request",
  "invalid_depth",
  "unsupported_exit_policy",
  "context_length_exceeded",
  "body_too_large",
  "model_not_found",
  "not_found",
  "method_not_allowed",
  "missing_api_key",
  "invalid_api_key",
  "depth_not_allowed",
  "permission_denied",
  "insufficient_budget",
  "rate_limited",
  "concurrency_limited",
  "idempotency_conflict",
  "overloaded",
  "draining",
  "upstream_unavailable",
  "upstream_failed",
  "timeout",
  "cancelled",
  "internal_error",
]);
export type ErrorCode = z.infer<typeof ErrorCode>;

type ErrorType =
  | "invalid_request_error"
  | "authentication_error"
  | "permission_error"
  | "not_found_error"
  | "insufficient_quota"
  | "rate_limit_error"
  | "server_error";

const HTTP: Record<ErrorCode, { status: number; type: ErrorType }> = {
  invalid_json: { status: 400, type: "invalid_request_error" },
  invalid_request: { status: 400, type: "invalid_request_error" },
  invalid_depth: { status: 400, type: "invalid_request_error" },
  unsupported_exit_policy: { status: 400, type: "invalid_request_error" },
  context_length_exceeded: { status: 400, type: "invalid_request_error" },
  body_too_large: { status: 413, type: "invalid_request_error" },
  model_not_found: { status: 404, type: "not_found_error" },
  not_found: { status: 404, type: "not_found_error" },
  method_not_allowed: { status: 405, type: "invalid_request_error" },
  missing_api_key: { status: 401, type: "authentication_error" },
  invalid_api_key: { status: 401, type: "authentication_error" },
  depth_not_allowed: { status: 403, type: "permission_error" },
  permission_denied: { status: 403, type: "permission_error" },
  insufficient_budget: { status: 402, type: "insufficient_quota" },
  rate_limited: { status: 429, type: "rate_limit_error" },
  concurrency_limited: { status: 429, type: "rate_limit_error" },
  idempotency_conflict: { status: 409, type: "invalid_request_error" },
  overloaded: { status: 429, type: "rate_limit_error" },
  draining: { status: 503, type: "server_error" },
  upstream_unavailable: { status: 503, type: "server_error" },
  upstream_failed: { status: 502, type: "server_error" },
  timeout: { status: 504, type: "server_error" },
  cancelled: { status: 499, type: "server_error" },
  internal_error: { status: 500, type: "server_error" },
};

/** The OpenAI error envelope: `{"error": {message, type, code, param}}`. */
export const ErrorBody = z.object({
  error: z.object({
    message: z.string(),
    type: z.string(),
    code: z.string().nullable(),
    param: z.string().nullable(),
  }),
});
export type ErrorBody = z.infer<typeof ErrorBody>;

/**
 * An error that a client may see. Anything else that is thrown becomes `internal_error` at the boundary and its text
 * stays in the log.
 */
export class ApiError extends Error {
  override readonly name = "ApiError";
  readonly code: ErrorCode;
  /** Path of the offending request field in dotted form (`messages.0.content`), or null. */
  readonly param: string | null;
  /** Seconds after which a retry may succeed; sent as `retry-after`. */
  readonly retryAfter: number | undefined;

  constructor(
    code: ErrorCode,
    message: string,
    options: { param?: string; retryAfter?: number; cause?: unknown } = {},
  ) {
    super(message, { cause: options.cause });
    this.code = code;
    this.param = options.param ?? null;
    this.retryAfter = options.retryAfter;
  }

  /** HTTP status that belongs to the code. */
  get status(): number {
    return HTTP[this.code].status;
  }

  /** The body to send, OpenAI-shaped. */
  toBody(): ErrorBody {
    return {
      error: { message: this.message, type: HTTP[this.code].type, code: this.code, param: this.param },
    };
  }
}

/** Turns a zod failure into an `invalid_request` that names the first offending field and says what it expects. */
export function fromZodError(error: z.ZodError): ApiError {
  const issue = error.issues[0];
  if (!issue) return new ApiError("invalid_request", "The request is not valid.");
  const path = issue.code === "unrecognized_keys" ? [...issue.path, issue.keys[0] ?? ""] : issue.path;
  const param = path.map(String).join(".");
  const where = param === "" ? "The request body" : `'${param}'`;
  return new ApiError("invalid_request", `${where}: ${issue.message}`, param === "" ? {} : { param });
}
