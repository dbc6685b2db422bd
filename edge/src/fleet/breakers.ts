import { afterEnd, afterStart, allows, type CircuitBreaker, CLOSED } from "./circuit-breaker.ts";

/** A trial of a service whose end nobody told is over after this time, milliseconds. */
const TRIAL_MS = 30_000;

/** More services than any pool has; beyond that they are forgotten, so that addresses that come and go do not fill the memory. */
const MOST = 10_000;

/** By base URL: what this isolate has seen of the service. */
const breakers = new Map<string, CircuitBreaker>();

/** Whether a service is left alone because its last requests failed. */
export function rests(url: string): boolean {
  return !allows(breakers.get(url) ?? CLOSED, Date.now());
}

/** How a try ended, for its service's breaker. */
export type TryEnd = Parameters<typeof afterEnd>[1];

/**
 * Counts a request that is about to be sent.
 * @returns to be called with its end; undefined when the service is left alone
 */
export function startTry(url: string): ((end: TryEnd) => void) | undefined {
  if (rests(url)) return undefined;
  change(url, (breaker) => afterStart(breaker, Date.now(), TRIAL_MS));
  return (end) => change(url, (breaker) => afterEnd(breaker, end, Date.now()));
}

/** Forgets what was seen of all services, as a new isolate would. */
export function forgetBreakers(): void {
  breakers.clear();
}

function change(url: string, next: (breaker: CircuitBreaker) => CircuitBreaker): void {
  const before = breakers.get(url) ?? CLOSED;
  const after = next(before);
  if (after.state !== before.state) console.warn(JSON.stringify({ service: url, breaker: after.state }));
  if (breakers.size >= MOST) breakers.clear();
  if (after === CLOSED) breakers.delete(url);
  else breakers.set(url, after);
}
