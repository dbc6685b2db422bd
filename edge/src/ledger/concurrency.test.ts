import { env } from "cloudflare:workers";
import { describe, expect, test } from "vitest";
import type { AccessRefusal } from "./access.ts";
import { Account } from "./account.ts";
import type { Lease } from "./lease.ts";
import type { Limits, ReserveResult } from "./ledger.ts";
import type { Offer } from "./offer.ts";
import { HOLDER, METERED } from "./testing.ts";

const PLENTY: Limits = { requestsPerMinute: 100_000, concurrency: 100_000, monthlyBudget: 0 };
const REQUESTS = 1000;

/** A new tenant's account, and what asks it. */
function newAccount(shards: number, limits: Partial<Limits>) {
  const tenant = crypto.randomUUID();
  const account = new Account(env.LEDGER, tenant, shards);
  const reserve = (offers: Offer[]): Promise<{ result: ReserveResult | AccessRefusal; lease: Lease }> =>
    account.reserve(
      {
        id: crypto.randomUUID(),
        holder: { ...HOLDER, tenant },
        offers,
        limits: { ...PLENTY, ...limits },
        leaseMs: 600_000,
      },
      () => undefined,
    );
  return { reserve, usage: async () => await env.LEDGER.getByName(tenant).usage() };
}

const OFFERS: Offer[] = [
  { depth: 30, reason: "plan", cost: 90, keep: 0 },
  { depth: 18, reason: "budget", cost: 54, keep: 0 },
  { depth: 12, reason: "budget", cost: 36, keep: 0 },
];
const CHEAPEST = OFFERS.slice(-1);

const costOf = (result: ReserveResult | AccessRefusal) => ("granted" in result ? result.granted.cost : 0);

describe.each([1, 4])("with %d ledgers", (shards) => {
  test.each([0, 1, 17, 333])(
    "of 1,000 requests at once against a budget for exactly %d, exactly these are admitted",
    async (n) => {
      const monthlyBudget = n * 36 + 35;
      const { reserve, usage } = newAccount(shards, { monthlyBudget });
      const got = await Promise.all(Array.from({ length: REQUESTS }, () => reserve(CHEAPEST)));
      expect(got.filter(({ result }) => "granted" in result)).toHaveLength(n);
      expect(await usage()).toMatchObject({ settled: 0, reserved: n * 36, inFlight: n });
      // The refusals took nothing: as many are admitted again once the others have been given back.
      await Promise.all(got.map(({ lease, result }) => ("granted" in result ? lease.release() : undefined)));
      const again = await Promise.all(Array.from({ length: 50 }, () => reserve(CHEAPEST)));
      expect(again.filter(({ result }) => "granted" in result)).toHaveLength(Math.min(50, n));
    },
  );

  test("requests that may go shallower leave less than the cheapest offer, and never overrun the budget", async () => {
    const monthlyBudget = 20_011;
    const { reserve, usage } = newAccount(shards, { monthlyBudget });
    const got = await Promise.all(Array.from({ length: REQUESTS }, () => reserve(OFFERS)));
    const reserved = got.reduce((sum, { result }) => sum + costOf(result), 0);
    expect(await usage()).toMatchObject({ reserved });
    expect(reserved).toBeLessThanOrEqual(monthlyBudget);
    expect(monthlyBudget - reserved).toBeLessThan(36);
  });

  test("what answers did not use is spent by the next ones, to the last of it, in the day's window too", async () => {
    const dailyBudget = 1800;
    const { reserve, usage } = newAccount(shards, { monthlyBudget: 10_000, dailyBudget });
    let settled = 0;
    for (let round = 0; round < 200; round++) {
      const got = await Promise.all(Array.from({ length: 40 }, () => reserve(CHEAPEST)));
      const admitted = got.filter(({ result }) => "granted" in result);
      if (admitted.length === 0) break;
      await Promise.all(admitted.map(({ lease }, i) => lease.settle(36 - (i % 36), METERED)));
      settled += admitted.reduce((sum, _, i) => sum + 36 - (i % 36), 0);
    }
    expect(await usage()).toMatchObject({ settled, reserved: 0, today: { settled, reserved: 0 } });
    expect(dailyBudget - settled).toBeLessThan(36);
    expect(dailyBudget - settled).toBeGreaterThanOrEqual(0);
    const { result } = await reserve(CHEAPEST);
    expect(result).toMatchObject({ refused: "budget", window: "day" });
  });

  test("neither the rate nor the concurrency is overrun, nor used less than allowed", async () => {
    for (const limits of [{ concurrency: 23 }, { requestsPerMinute: 23 }]) {
      const { reserve, usage } = newAccount(shards, { monthlyBudget: 1e9, ...limits });
      const got = await Promise.all(Array.from({ length: 200 }, () => reserve(CHEAPEST)));
      expect(got.filter(({ result }) => "granted" in result)).toHaveLength(23);
      expect(await usage()).toMatchObject({ inFlight: 23, reserved: 23 * 36 });
    }
  });
});
