import { ApiError } from "@fathom/shared";
import type { Refusal } from "./ledger.ts";

/** What a client is told of a refusal by the ledger. */
export function refusalError(refusal: Refusal, planName: string): ApiError {
  switch (refusal.refused) {
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
