import { ApiError, ErrorBody, ErrorCode } from "@fathom/shared";

/** Codes of a service that speak of the client's request. The others speak of the service, or of how the edge called it. */
const FOR_CLIENTS: ReadonlySet<ErrorCode> = new Set<ErrorCode>([
  "invalid_request",
  "invalid_depth",
  "unsupported_exit_policy",
  "context_length_exceeded",
  "body_too_large",
  "model_not_found",
  "overloaded",
  "timeout",
]);

/** The error for the client when a service has refused a request or failed with it. Reads the response's body. */
export async function serviceError(response: Response): Promise<ApiError> {
  const body = ErrorBody.safeParse(await response.json().catch(() => undefined));
  const code = ErrorCode.safeParse(body.data?.error.code);
  const retryAfter = retryAfterOf(response);
  if (body.success && code.success && FOR_CLIENTS.has(code.data)) {
    const { message, param } = body.data.error;
    return new ApiError(code.data, message, {
      ...(param === null ? {} : { param }),
      ...(retryAfter === undefined ? {} : { retryAfter }),
    });
  }
  const words = body.success ? `: ${body.data.error.message}` : "";
  const cause = `status ${response.status}, code ${code.data ?? "none"}${words}`;
  if (response.status === 503) {
    const message = "The GPU service is not available now.";
    return new ApiError("upstream_unavailable", message, { retryAfter: retryAfter ?? 2, cause });
  }
  return new ApiError("upstream_failed", "The GPU service failed.", { cause });
}

function retryAfterOf(response: Response): number | undefined {
  const text = response.headers.get("retry-after");
  return text !== null && /^\d{1,5}$/.test(text) ? Number(text) : undefined;
}
