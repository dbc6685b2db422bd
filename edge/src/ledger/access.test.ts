import { evictDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import type { ReserveRequest } from "./ledger.ts";

const KEY = "0123456789abcdef";
const newLedger = () => env.LEDGER.getByName(crypto.randomUUID());
const request = (cost = 1): ReserveRequest => ({
  id: crypto.randomUUID(),
  offers: [{ depth: 12, reason: "plan", cost, keep: 0 }],
  limits: { requestsPerMinute: 10, concurrency: 10, monthlyBudget: 1000 },
  leaseMs: 60_000,
});
const open = { suspended: false, monthlyBudget: null, revoked: [] };

test("a ledger that was told nothing refuses nobody", async () => {
  const ledger = newLedger();
  expect(await ledger.barred(KEY)).toBeUndefined();
  expect(await ledger.reserve(request(), KEY)).toHaveProperty("granted");
});

test("a revoked key takes nothing, and other keys go on", async () => {
  const ledger = newLedger();
  await ledger.changeAccess({ ...open, revoked: [KEY] });
  expect(await ledger.reserve(request(), KEY)).toEqual({ refused: "revoked" });
  expect(await ledger.usage()).toMatchObject({ reserved: 0, inFlight: 0 });
  const other = await ledger.reserve(request(), "fedcba9876543210");
  expect(other).toMatchObject({ granted: { depth: 12 }, rate: { remaining: 9 } });
});

test("what was revoked stays revoked, whatever is told later, also after an eviction", async () => {
  const ledger = newLedger();
  await ledger.changeAccess({ ...open, revoked: [KEY] });
  await ledger.changeAccess(open);
  await evictDurableObject(ledger);
  expect(await ledger.barred(KEY)).toEqual({ refused: "revoked" });
});

test("a suspended tenant is refused until it is active again, and a revoked key is told nothing of it", async () => {
  const ledger = newLedger();
  await ledger.changeAccess({ suspended: true, monthlyBudget: null, revoked: ["ffffffffffffffff"] });
  expect(await ledger.reserve(request(), KEY)).toEqual({ refused: "suspended" });
  expect(await ledger.barred("ffffffffffffffff")).toEqual({ refused: "revoked" });
  await ledger.changeAccess(open);
  expect(await ledger.reserve(request(), KEY)).toHaveProperty("granted");
});

test("the tenant's own budget counts, lower or higher than the plan's", async () => {
  const ledger = newLedger();
  await ledger.changeAccess({ ...open, monthlyBudget: 5 });
  expect(await ledger.reserve(request(6), KEY)).toMatchObject({ refused: "budget", remaining: 5 });
  await ledger.changeAccess({ ...open, monthlyBudget: 2000 });
  expect(await ledger.reserve(request(2000), KEY)).toHaveProperty("granted");
});
