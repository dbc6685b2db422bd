import { CLOCK_SKEW_SECONDS, MAX_TOKEN_LIFETIME_SECONDS } from "./service-token.ts";

/**
 * Why a token does not hold at a time, or undefined when it does. Clocks may differ by CLOCK_SKEW_SECONDS.
 * @param now seconds since the epoch
 */
export function tokenTimeProblem({ iat, exp }: { iat: number; exp: number }, now: number): string | undefined {
  const early = iat - now;
  const late = now - exp;
  if (exp <= iat || exp - iat > MAX_TOKEN_LIFETIME_SECONDS) {
    return `the token is valid for ${exp - iat} s instead of 1 to ${MAX_TOKEN_LIFETIME_SECONDS} s`;
  }
  if (early > CLOCK_SKEW_SECONDS) {
    return `the token is not valid yet: it was signed ${Math.round(early)} s in the future (is a clock wrong?)`;
  }
  if (late > CLOCK_SKEW_SECONDS) {
    return `the token has expired ${Math.round(late)} s ago (is a clock wrong?)`;
  }
  return undefined;
}
