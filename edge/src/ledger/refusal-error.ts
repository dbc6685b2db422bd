import { ApiError } from "@fathom/shared";
import type { AccessRefusal } from "./access.ts";
import type { Refusal } from "./ledger.ts";

/** IETF draft-ietf-httpapi-idempotency-key-header. */
export const IDEMPOTENCY_HEADER = "idempotency-key";

/** Nobody knows how long the answer takes. */
const IN_FLIGHT_RETRY_SECONDS = 1;

/** What is said of a key that is wrong, unknown, expired or revoked: which of them is nobody's business. */
export function invalidKey(): ApiError {
  return new ApiError("invalid_api_key", "The API key is wrong.");
}

/** What a client is told of a refusal by the ledger. */
export function refusalError(refusal: Refusal | AccessRefusal, planName: string): ApiError {
  switch (refusal.refused) {
    case "revoked":
      return invalidKey();
    case "suspended":
      return new ApiError("permission_denied", "This account is suspended.");
    case "rate": {
      const message = `The plan '${planName}' allows no more requests in this minute.`;
      return new ApiError("rate_limited", message, { retryAfter: refusal.retryAfterMs / 1000 });
    }
    case "concurrency": {
      const message = `The plan '${planName}' allows no more requests at once.`;
      return new ApiError("concurrency_limited", message, { retryAfter: refusal.retryAfterMs / 1000 });
    }
    case "budget": {
      const budget = refusal.window === "month" ? "this month's budget" : "today's budget";
      const message = `The ${refusal.remaining} micro-USD that remain of ${budget} do not cover this request at any depth that it allows; a smaller max_tokens costs less.`;
      return new ApiError("insufficient_budget", message, { retryAfter: refusal.retryAfterMs / 1000 });
    }
    case "idempotency":
      return keyConflict(refusal.key);
  }
}

/** What a client is told of an idempotency key that cannot be used now, or not for this request. */
export function keyConflict(key: "in_flight" | "reused" | "dropped"): ApiError {
  const param = IDEMPOTENCY_HEADER;
  switch (key) {
    case "in_flight":
      return new ApiError("idempotency_conflict", "The request with this key is still being answered.", {
        param,
        retryAfter: IN_FLIGHT_RETRY_SECONDS,
      });
    case "reused":
      return new ApiError("idempotency_conflict", "The key was sent with another request; use a new one.", { param });
    case "dropped":
      return new ApiError(
        "idempotency_conflict",
        "The request with this key was answered and charged; the answer is no longer kept.",
        { param },
      );
  }
}
