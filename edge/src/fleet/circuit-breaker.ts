/** Failures in a row after which a service is left alone. */
export const FAILURES_TO_OPEN = 5;

/** How long it is left alone the first time, milliseconds. Each trial that fails doubles it, up to the longest. */
export const FIRST_REST_MS = 1000;
export const LONGEST_REST_MS = 30_000;

/** What a service's last requests say of it. */
export type CircuitBreaker =
  /** It gets requests. */
  | { state: "closed"; failures: number }
  /** It gets none. */
  | { state: "open"; until: number; restMs: number }
  /** One request is under way to see whether it is well again; nobody waits for a trial whose end is never told. */
  | { state: "half-open"; until: number; restMs: number };

/** A breaker of which nothing is known yet. */
export const CLOSED: CircuitBreaker = { state: "closed", failures: 0 };

/** Whether a request may be sent now. @param now milliseconds, on the same clock throughout */
export function allows(breaker: CircuitBreaker, now: number): boolean {
  return breaker.state === "closed" || now >= breaker.until;
}

/** After a request was sent that the breaker allowed. @param trialMs how long a trial may go without an end */
export function afterStart(breaker: CircuitBreaker, now: number, trialMs: number): CircuitBreaker {
  if (breaker.state === "closed") return breaker;
  return { state: "half-open", until: now + trialMs, restMs: breaker.restMs };
}

/** After a request ended; `unknown` when that says nothing of the service, as when the client left. */
export function afterEnd(breaker: CircuitBreaker, end: "answered" | "failed" | "unknown", now: number): CircuitBreaker {
  switch (end) {
    case "answered":
      // One that was sent before it opened is no trial: it may be the last good answer of a service that died since.
      return breaker.state === "open" ? breaker : CLOSED;
    case "failed":
      return afterFailure(breaker, now);
    case "unknown":
      return breaker.state === "half-open"
        ? { state: "open", until: now + breaker.restMs, restMs: breaker.restMs }
        : breaker;
    default:
      return end satisfies never;
  }
}

function afterFailure(breaker: CircuitBreaker, now: number): CircuitBreaker {
  switch (breaker.state) {
    case "closed": {
      const failures = breaker.failures + 1;
      if (failures < FAILURES_TO_OPEN) return { state: "closed", failures };
      return { state: "open", until: now + FIRST_REST_MS, restMs: FIRST_REST_MS };
    }
    case "open":
      return breaker;
    case "half-open": {
      const restMs = Math.min(2 * breaker.restMs, LONGEST_REST_MS);
      return { state: "open", until: now + restMs, restMs };
    }
    default:
      return breaker satisfies never;
  }
}
