import fc from "fast-check";
import { expect, test } from "vitest";
import {
  afterEnd,
  afterStart,
  allows,
  type CircuitBreaker,
  CLOSED,
  FAILURES_TO_OPEN,
  FIRST_REST_MS,
  LONGEST_REST_MS,
} from "./circuit-breaker.ts";

const TRIAL_MS = 500;
const opened = (now: number): CircuitBreaker =>
  Array.from({ length: FAILURES_TO_OPEN }).reduce<CircuitBreaker>((b) => afterEnd(b, "failed", now), CLOSED);

test("opens after failures in a row, and not before", () => {
  let breaker = CLOSED;
  for (let i = 1; i < FAILURES_TO_OPEN; i++) breaker = afterEnd(breaker, "failed", 0);
  expect(allows(breaker, 0)).toBe(true);
  expect(afterEnd(breaker, "answered", 0)).toEqual(CLOSED);
  expect(allows(afterEnd(breaker, "failed", 0), 0)).toBe(false);
});

test("lets one request try after the rest; its answer closes, its failure doubles the rest", () => {
  const rested = opened(0);
  expect([allows(rested, FIRST_REST_MS - 1), allows(rested, FIRST_REST_MS)]).toEqual([false, true]);
  const trial = afterStart(rested, FIRST_REST_MS, TRIAL_MS);
  expect(allows(trial, FIRST_REST_MS)).toBe(false);
  expect(afterEnd(trial, "answered", FIRST_REST_MS)).toEqual(CLOSED);
  const again = afterEnd(trial, "failed", FIRST_REST_MS);
  expect(allows(again, 3 * FIRST_REST_MS - 1)).toBe(false);
  expect(allows(again, 3 * FIRST_REST_MS)).toBe(true);
});

test("a trial without an end does not lock the service out", () => {
  const trial = afterStart(opened(0), FIRST_REST_MS, TRIAL_MS);
  expect(allows(trial, FIRST_REST_MS + TRIAL_MS)).toBe(true);
  // One that said nothing is repeated after the same rest: else every request would be a trial of a service that hangs.
  const silent = afterEnd(trial, "unknown", FIRST_REST_MS);
  expect(allows(silent, FIRST_REST_MS)).toBe(false);
  expect(allows(silent, 2 * FIRST_REST_MS)).toBe(true);
});

const event = fc.record({
  after: fc.nat(2000),
  end: fc.constantFrom("answered" as const, "failed" as const, "unknown" as const, undefined),
});

test("whatever happens: it opens only by failures, never rests too long, and one good trial closes it", () => {
  fc.assert(
    fc.property(fc.array(event, { maxLength: 60 }), (events) => {
      let breaker = CLOSED;
      let now = 0;
      let failures = 0;
      for (const { after, end } of events) {
        now += after;
        if (allows(breaker, now)) breaker = afterStart(breaker, now, TRIAL_MS);
        if (end) breaker = afterEnd(breaker, end, now);
        if (end === "failed") failures++;
        if (breaker.state !== "closed") {
          expect(failures).toBeGreaterThanOrEqual(FAILURES_TO_OPEN);
          expect(breaker.until - now).toBeLessThanOrEqual(LONGEST_REST_MS);
          expect(allows(breaker, now + LONGEST_REST_MS)).toBe(true);
        }
      }
      const later = now + LONGEST_REST_MS;
      expect(afterEnd(afterStart(breaker, later, TRIAL_MS), "answered", later)).toEqual(CLOSED);
    }),
  );
});
