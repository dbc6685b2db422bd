import { runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import fc from "fast-check";
import { expect, test } from "vitest";
import { Ledger, type Limits, RETENTION_MS } from "./ledger.ts";
import type { Offer } from "./offer.ts";
import { COPIES_KEPT_MS } from "./outbox.ts";
import { HOLDER, METERED } from "./testing.ts";

const LIMITS: Limits = { requestsPerMinute: 100, concurrency: 100, monthlyBudget: 1000 };
const NOW = Date.UTC(2026, 10, 24, 12);
const LEASE_MS = 10_000;

const offer = (cost: number, depth = 12, keep = 0): Offer => ({ depth, reason: "plan", cost, keep });

/** Runs against the SQLite database of a fresh object. */
function withLedger(work: (ledger: Ledger) => void): Promise<void> {
  const stub = env.LEDGER.getByName(crypto.randomUUID());
  return runInDurableObject(stub, (_, state) => work(new Ledger(state.storage)));
}

const reserve = (ledger: Ledger, id: string, offers: Offer[], now = NOW, limits: Partial<Limits> = {}) =>
  ledger.reserve({ id, holder: HOLDER, offers, limits: { ...LIMITS, ...limits }, leaseMs: LEASE_MS }, now);

const settle = (ledger: Ledger, id: string, microUsd: number, now = NOW, body?: string) =>
  ledger.settle(id, microUsd, METERED, now, body);

test("takes the deepest offer that the budget covers, then shallower ones, then none", () =>
  withLedger((ledger) => {
    const offers = [offer(400, 24), offer(300, 18), offer(200, 12)];
    const got = ["a", "b", "c", "d"].map((id) => reserve(ledger, id, offers));
    expect(
      got.map((result) => ("granted" in result ? result.granted.depth : "refused" in result && result.refused)),
    ).toEqual([24, 24, 12, "budget"]);
    expect(ledger.usage(NOW)).toEqual({
      month: "2026-11",
      settled: 0,
      reserved: 1000,
      inFlight: 3,
      today: { settled: 0, reserved: 1000 },
    });
    expect(got[3]).toMatchObject({ remaining: 0 });
  }));

test("an offer must leave what it is to keep", () =>
  withLedger((ledger) => {
    const offers = [offer(100, 24, 500), offer(50, 12, 0)];
    expect(reserve(ledger, "a", offers, NOW, { monthlyBudget: 600 })).toMatchObject({ granted: { depth: 24 } });
    expect(reserve(ledger, "b", offers, NOW, { monthlyBudget: 600 })).toMatchObject({ granted: { depth: 12 } });
  }));

test("settling charges the real cost, frees the rest, and does so once", () =>
  withLedger((ledger) => {
    reserve(ledger, "a", [offer(400)]);
    expect(settle(ledger, "a", 150)).toEqual({ state: "settled", charged: 150 });
    expect(settle(ledger, "a", 399)).toEqual({ state: "settled", charged: 150 });
    expect(ledger.release("a")).toEqual({ state: "settled", charged: 150 });
    expect(ledger.usage(NOW)).toMatchObject({ settled: 150, reserved: 0, inFlight: 0 });
  }));

test("never charges more than was held", () =>
  withLedger((ledger) => {
    reserve(ledger, "a", [offer(400)]);
    expect(settle(ledger, "a", 5000)).toEqual({ state: "settled", charged: 400 });
  }));

test("a release costs nothing and gives the place in the rate back", () =>
  withLedger((ledger) => {
    const limits = { requestsPerMinute: 1 };
    reserve(ledger, "a", [offer(400)], NOW, limits);
    expect(ledger.release("a")).toEqual({ state: "released", charged: 0 });
    expect(settle(ledger, "a", 100)).toEqual({ state: "released", charged: 0 });
    expect(reserve(ledger, "b", [offer(400)], NOW, limits)).toHaveProperty("granted");
    expect(ledger.usage(NOW)).toMatchObject({ settled: 0, reserved: 400 });
  }));

test("an unknown hold cannot be ended", () =>
  withLedger((ledger) => {
    expect(settle(ledger, "nobody", 10)).toEqual({ state: "unknown", charged: 0 });
    expect(ledger.release("nobody")).toEqual({ state: "unknown", charged: 0 });
  }));

test("reserving an id again takes nothing more", () =>
  withLedger((ledger) => {
    const first = reserve(ledger, "a", [offer(400)]);
    const again = reserve(ledger, "a", [offer(300)]);
    expect(again).toEqual(first);
    expect(ledger.usage(NOW)).toMatchObject({ reserved: 400, inFlight: 1 });
  }));

test("the rate counts the last 60 seconds and says when the next place is free", () =>
  withLedger((ledger) => {
    const limits = { requestsPerMinute: 2 };
    const at = (seconds: number) => reserve(ledger, `${seconds}`, [offer(1)], NOW + seconds * 1000, limits);
    expect(at(0).rate).toEqual({ limit: 2, remaining: 1, resetMs: 60_000 });
    expect(at(20).rate).toEqual({ limit: 2, remaining: 0, resetMs: 60_000 });
    expect(at(30)).toEqual({
      refused: "rate",
      retryAfterMs: 30_000,
      rate: { limit: 2, remaining: 0, resetMs: 50_000 },
    });
    expect(at(60)).toHaveProperty("granted");
    expect(at(61)).toMatchObject({ refused: "rate", retryAfterMs: 19_000 });
  }));

test("concurrency counts the holds that have not ended", () =>
  withLedger((ledger) => {
    const limits = { concurrency: 1 };
    reserve(ledger, "a", [offer(1)], NOW, limits);
    expect(reserve(ledger, "b", [offer(1)], NOW, limits)).toMatchObject({ refused: "concurrency" });
    settle(ledger, "a", 1);
    expect(reserve(ledger, "b", [offer(1)], NOW, limits)).toHaveProperty("granted");
  }));

test("a refusal takes nothing", () =>
  withLedger((ledger) => {
    reserve(ledger, "a", [offer(5000)]);
    reserve(ledger, "b", [offer(1)], NOW, { concurrency: 0 });
    expect(ledger.usage(NOW)).toMatchObject({ reserved: 0, inFlight: 0 });
    expect(reserve(ledger, "c", [offer(1)]).rate.remaining).toBe(99);
  }));

test("a hold that nobody ends expires, and ending it later changes nothing", () =>
  withLedger((ledger) => {
    reserve(ledger, "a", [offer(400)]);
    expect(ledger.nextDue()).toBe(NOW + LEASE_MS);
    expect(ledger.usage(NOW + LEASE_MS - 1).reserved).toBe(400);
    ledger.expire(NOW + LEASE_MS);
    expect(settle(ledger, "a", 100)).toEqual({ state: "expired", charged: 0 });
    expect(ledger.usage(NOW + LEASE_MS)).toMatchObject({ settled: 0, reserved: 0, inFlight: 0 });
  }));

test("a hold that is due no longer stands in the way of the next request", () =>
  withLedger((ledger) => {
    reserve(ledger, "a", [offer(1000)], NOW, { concurrency: 1 });
    const later = reserve(ledger, "b", [offer(1000)], NOW + LEASE_MS, { concurrency: 1 });
    expect(later).toHaveProperty("granted");
  }));

test("ended holds are forgotten after their retention, what they cost is not", () =>
  withLedger((ledger) => {
    reserve(ledger, "a", [offer(400)]);
    settle(ledger, "a", 150);
    expect(ledger.nextDue()).toBe(NOW + LEASE_MS + RETENTION_MS);
    ledger.prune(NOW + LEASE_MS + RETENTION_MS);
    // The copy of its usage row stays for the reconciliation.
    const copyDue = Date.UTC(2026, 10, 25) + COPIES_KEPT_MS;
    expect(ledger.nextDue()).toBe(copyDue);
    ledger.outbox.acknowledge(ledger.outbox.next(10).upTo);
    ledger.prune(copyDue);
    expect(ledger.nextDue()).toBeUndefined();
    expect(settle(ledger, "a", 1)).toEqual({ state: "unknown", charged: 0 });
    expect(ledger.usage(NOW).settled).toBe(150);
  }));

test("a new month has the whole budget, and an answer belongs to the month in which it began", () =>
  withLedger((ledger) => {
    const endOfMonth = Date.UTC(2026, 10, 30, 23, 59, 59);
    reserve(ledger, "a", [offer(1000)], endOfMonth);
    settle(ledger, "a", 1000);
    expect(reserve(ledger, "b", [offer(1)], endOfMonth)).toMatchObject({ refused: "budget" });
    expect(reserve(ledger, "c", [offer(1000)], endOfMonth + 1000)).toHaveProperty("granted");
    settle(ledger, "c", 600);
    expect(ledger.usage(endOfMonth).settled).toBe(1000);
    expect(ledger.usage(endOfMonth + 1000)).toMatchObject({ month: "2026-12", settled: 600 });
  }));

test.each([0.5, -1, Number.NaN, Number.POSITIVE_INFINITY, 2 ** 60])("refuses the amount %d", (amount) =>
  withLedger((ledger) => {
    expect(() => reserve(ledger, "a", [offer(amount)])).toThrow(RangeError);
    expect(() => settle(ledger, "a", amount)).toThrow(RangeError);
    expect(ledger.usage(NOW).inFlight).toBe(0);
  }),
);

test("whatever happens in whatever order, the account adds up and is never overrun", async () => {
  const ids = fc.constantFrom("a", "b", "c", "d", "e");
  const step = fc.oneof(
    fc.record({ what: fc.constant("reserve" as const), id: ids, cost: fc.integer({ min: 0, max: 600 }) }),
    fc.record({ what: fc.constant("settle" as const), id: ids, cost: fc.integer({ min: 0, max: 900 }) }),
    fc.record({ what: fc.constant("release" as const), id: ids }),
    fc.record({ what: fc.constant("wait" as const), ms: fc.integer({ min: 0, max: LEASE_MS }) }),
  );
  await fc.assert(
    fc.asyncProperty(fc.array(step, { maxLength: 40 }), (steps) =>
      withLedger((ledger) => {
        // The same account, kept by a few lines of arithmetic.
        const held = new Map<string, { cost: number; until: number }>();
        const known = new Set<string>();
        let settled = 0;
        let now = NOW;
        for (const s of steps) {
          if (s.what === "wait") now += s.ms;
          for (const [id, { until }] of held) if (until <= now) held.delete(id);
          const reserved = [...held.values()].reduce((sum, { cost }) => sum + cost, 0);
          if (s.what === "reserve") {
            const fits = known.has(s.id) || s.cost <= 1000 - settled - reserved;
            expect("granted" in reserve(ledger, s.id, [offer(s.cost)], now)).toBe(fits);
            if (fits && !known.has(s.id)) held.set(s.id, { cost: s.cost, until: now + LEASE_MS });
            if (fits) known.add(s.id);
          } else if (s.what !== "wait") {
            ledger.expire(now);
            const hold = held.get(s.id);
            const charged = s.what === "settle" ? Math.min(hold?.cost ?? 0, s.cost) : 0;
            if (hold) settled += charged;
            held.delete(s.id);
            if (s.what === "settle") settle(ledger, s.id, s.cost);
            else ledger.release(s.id);
          }
          const usage = ledger.usage(now);
          expect(usage.settled).toBe(settled);
          expect(usage.reserved).toBe([...held.values()].reduce((sum, { cost }) => sum + cost, 0));
          expect(usage.settled + usage.reserved).toBeLessThanOrEqual(1000);
        }
      }),
    ),
    { numRuns: 40 },
  );
});
