import { ApiError } from "@fathom/shared";

/** What a client sees of an error: an ApiError as it is, anything else as `internal_error` without its text. */
export function toApiError(error: unknown): ApiError {
  if (error instanceof ApiError) return error;
  return new ApiError("internal_error", "Something went wrong on our side.", { cause: error });
}

/** An error as an OpenAI-shaped response, with the headers that belong to its code. */
export function errorResponse(error: ApiError, headers: Record<string, string> = {}): Response {
  return Response.json(error.toBody(), { status: error.status, headers: { ...errorHeaders(error), ...headers } });
}

function errorHeaders(error: ApiError): Record<string, string> {
  const headers: Record<string, string> = {};
  if (error.retryAfter !== undefined) headers["retry-after"] = String(Math.ceil(error.retryAfter));
  if (error.status === 401) headers["www-authenticate"] = "Bearer";
  return headers;
}
