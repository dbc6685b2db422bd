import { evictDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import fc from "fast-check";
import { expect, test } from "vitest";
import { HOLDER, METERED } from "./testing.ts";

const BUDGET = 1000;
const LIMITS = { requestsPerMinute: 100_000, concurrency: 100_000, monthlyBudget: BUDGET };

/** One request: how far its worker comes before it dies, and how often each of its calls is sent. */
const request = fc.record({
  cost: fc.integer({ min: 0, max: 300 }),
  used: fc.integer({ min: 0, max: 400 }),
  diesAfter: fc.constantFrom("reserve" as const, "end" as const),
  end: fc.constantFrom("settle" as const, "release" as const),
  calls: fc.integer({ min: 1, max: 3 }),
  evictBefore: fc.constantFrom(undefined, "reserve" as const, "end" as const),
});

test("whatever crashes, is repeated or evicted: settled + reserved + remaining = budget, to the unit", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(request, { maxLength: 12 }), async (requests) => {
      const tenant = crypto.randomUUID();
      const ledger = env.LEDGER.getByName(tenant);
      const reserve = (id: string, cost: number) =>
        ledger.reserve({
          id,
          holder: { ...HOLDER, tenant, ledger: tenant },
          offers: [{ depth: 12, reason: "plan", cost, keep: 0 }],
          limits: LIMITS,
          leaseMs: 600_000,
        });
      // Only what runs can be evicted.
      await ledger.usage();
      let [settled, reserved] = [0, 0];
      for (const [i, { cost, used, diesAfter, end, calls, evictBefore }] of requests.entries()) {
        const id = `${tenant}-${i}`;
        if (evictBefore === "reserve") await evictDurableObject(ledger);
        const fits = cost <= BUDGET - settled - reserved;
        for (let call = 0; call < calls; call++) expect("granted" in (await reserve(id, cost))).toBe(fits);
        if (fits) reserved += cost;
        if (fits && diesAfter === "end") {
          if (evictBefore === "end") await evictDurableObject(ledger);
          for (let call = 0; call < calls; call++) {
            await (end === "settle" ? ledger.settle(id, used, METERED) : ledger.release(id));
          }
          reserved -= cost;
          if (end === "settle") settled += Math.min(used, cost);
        }
        expect(await ledger.usage()).toMatchObject({ settled, reserved });
      }
      // What is said to remain is really there, and not a unit more.
      const remaining = BUDGET - settled - reserved;
      expect("granted" in (await reserve(`${tenant}-too-much`, remaining + 1))).toBe(false);
      expect("granted" in (await reserve(`${tenant}-rest`, remaining))).toBe(true);
    }),
    { numRuns: 30 },
  );
});
