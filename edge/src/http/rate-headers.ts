import type { RateState } from "../ledger/ledger.ts";
import type { RequestContext } from "../request-context.ts";

/** Sets OpenAI's `x-ratelimit-*` headers. */
export function setRateHeaders(c: RequestContext, { limit, remaining, resetMs }: RateState): void {
  c.header("x-ratelimit-limit-requests", String(limit));
  c.header("x-ratelimit-remaining-requests", String(remaining));
  c.header("x-ratelimit-reset-requests", formatDuration(resetMs));
}

/** As OpenAI writes it: `1m0s`, `59.5s`, `0s`. */
export function formatDuration(ms: number): string {
  const minutes = Math.floor(ms / 60_000);
  const seconds = `${(ms % 60_000) / 1000}s`;
  return minutes > 0 ? `${minutes}m${seconds}` : seconds;
}
