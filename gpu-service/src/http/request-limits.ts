import { ApiError, TIMEOUT_HEADER } from "@fathom/shared";

const MILLISECONDS = /^[1-9]\d{0,8}$/;

/**
 * Milliseconds that an answer may take: the service's limit, or less if the caller says so in `x-fathom-timeout-ms`.
 * @throws ApiError `invalid_request` when the header holds anything else than whole milliseconds.
 */
export function requestTimeout(headers: Headers, limitMs: number): number {
  const wish = headers.get(TIMEOUT_HEADER);
  if (wish === null) return limitMs;
  if (!MILLISECONDS.test(wish)) throw badHeader(TIMEOUT_HEADER, "must be a whole number of milliseconds, from 1 on");
  return Math.min(limitMs, Number(wish));
}

/** A header that does not hold what it should, in the shape of a wrong field. */
export function badHeader(name: string, expectation: string): ApiError {
  return new ApiError("invalid_request", `'${name}': ${expectation}`, { param: name });
}
