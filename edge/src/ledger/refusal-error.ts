import { ApiError } from "@fathom/shared";
import type { AccessRefusal } from "./access.ts";
import type { Refusal } from "./ledger.ts";

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
    case "budget":
      return new ApiError(
        "insufficient_budget",
        `The ${refusal.remaining} micro-USD that remain of this month's budget do not cover this request at any depth that it allows; a smaller max_tokens costs less.`,
      );
  }
}
