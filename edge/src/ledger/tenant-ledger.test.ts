import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import type { Limits } from "./ledger.ts";
import type { Offer } from "./offer.ts";

const LIMITS: Limits = { requestsPerMinute: 10_000, concurrency: 10_000, monthlyBudget: 1000 };

/** Public id of a key that is not revoked. */
const KEY = "0123456789abcdef";

const newLedger = () => env.LEDGER.getByName(crypto.randomUUID());
const offer = (cost: number, depth = 12): Offer => ({ depth, reason: "plan", cost, keep: 0 });
const request = (offers: Offer[], limits: Partial<Limits> = {}, leaseMs = 60_000) => ({
  id: crypto.randomUUID(),
  offers,
  limits: { ...LIMITS, ...limits },
  leaseMs,
});

test("of many requests at once, exactly as many are admitted as the budget covers", async () => {
  const ledger = newLedger();
  const results = await Promise.all(
    Array.from({ length: 200 }, () => ledger.reserve(request([offer(30), offer(9)]), KEY)),
  );
  const granted = results.map((result) => ("granted" in result ? result.granted.cost : 0));
  expect(granted.filter((cost) => cost === 30)).toHaveLength(33);
  expect(granted.filter((cost) => cost === 9)).toHaveLength(1);
  expect(await ledger.usage()).toMatchObject({ reserved: 33 * 30 + 9, inFlight: 34 });
});

test("of many requests at once, no more are admitted than the rate and the concurrency allow", async () => {
  const count = async (limits: Partial<Limits>) => {
    const ledger = newLedger();
    const results = await Promise.all(
      Array.from({ length: 50 }, () => ledger.reserve(request([offer(1)], limits), KEY)),
    );
    return results.filter((result) => "granted" in result).length;
  };
  expect(await count({ requestsPerMinute: 7 })).toBe(7);
  expect(await count({ concurrency: 5 })).toBe(5);
});

test("tenants do not see each other", async () => {
  const [a, b] = [newLedger(), newLedger()];
  await a.reserve(request([offer(1000)]), KEY);
  expect(await b.reserve(request([offer(1000)]), KEY)).toHaveProperty("granted");
});

test("an alarm ends the holds of requests that nobody came back for", async () => {
  const ledger = newLedger();
  const { id, ...rest } = request([offer(400)], {}, 0);
  await ledger.reserve({ id, ...rest }, KEY);
  // Whether it runs here or by itself: the hold is due at once.
  await runDurableObjectAlarm(ledger);
  const states = await runInDurableObject(ledger, (_, state) =>
    state.storage.sql.exec("SELECT state FROM leases").toArray(),
  );
  expect(states).toEqual([{ state: "expired" }]);
  expect(await ledger.settle(id, 100)).toEqual({ state: "expired", charged: 0 });
});

test("the alarm is set for the hold that ends first, and then for the clearing up", async () => {
  const ledger = newLedger();
  const alarm = () => runInDurableObject(ledger, (_, state) => state.storage.getAlarm());
  const before = Date.now();
  await ledger.reserve(request([offer(1)], {}, 500_000), KEY);
  const later = (await alarm()) ?? 0;
  await ledger.reserve(request([offer(1)], {}, 100_000), KEY);
  const sooner = (await alarm()) ?? 0;
  expect(later - before).toBeGreaterThanOrEqual(500_000);
  expect(sooner - before).toBeGreaterThanOrEqual(100_000);
  expect(sooner).toBeLessThan(later);
  await ledger.reserve(request([offer(1)], {}, 500_000), KEY);
  expect(await alarm()).toBe(sooner);
});

test("holds and charges survive the object's eviction", async () => {
  const ledger = newLedger();
  const first = request([offer(400)]);
  await ledger.reserve(first, KEY);
  await ledger.settle(first.id, 123);
  const second = request([offer(400)]);
  await ledger.reserve(second, KEY);
  await evictDurableObject(ledger);
  expect(await ledger.usage()).toMatchObject({ settled: 123, reserved: 400, inFlight: 1 });
  expect(await ledger.settle(second.id, 77)).toEqual({ state: "settled", charged: 77 });
  expect(await ledger.usage()).toMatchObject({ settled: 200, reserved: 0 });
});
