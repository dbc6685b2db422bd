import { evictDurableObject, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { Access } from "./access.ts";
import { Account } from "./account.ts";
import type { ReserveRequest } from "./ledger.ts";
import { HOLDER, METERED } from "./testing.ts";

const KEY = "0123456789abcdef";
const newLedger = () => env.LEDGER.getByName(crypto.randomUUID());
const request = (cost = 1, keyId = KEY): ReserveRequest => ({
  id: crypto.randomUUID(),
  holder: { ...HOLDER, key_id: keyId },
  offers: [{ depth: 12, reason: "plan", cost, keep: 0 }],
  limits: { requestsPerMinute: 10, concurrency: 10, monthlyBudget: 1000 },
  leaseMs: 60_000,
});
const open = { suspended: false, monthlyBudget: null, revoked: [] };

test("a ledger that was told nothing refuses nobody", async () => {
  const ledger = newLedger();
  expect(await ledger.barred(KEY)).toBeUndefined();
  expect(await ledger.reserve(request(1))).toHaveProperty("granted");
});

test("a revoked key takes nothing, and other keys go on", async () => {
  const ledger = newLedger();
  await ledger.changeAccess({ ...open, revoked: [KEY] });
  expect(await ledger.reserve(request(1))).toEqual({ refused: "revoked" });
  expect(await ledger.usage()).toMatchObject({ reserved: 0, inFlight: 0 });
  const other = await ledger.reserve(request(1, "fedcba9876543210"));
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
  expect(await ledger.reserve(request(1))).toEqual({ refused: "suspended" });
  expect(await ledger.barred("ffffffffffffffff")).toEqual({ refused: "revoked" });
  await ledger.changeAccess(open);
  expect(await ledger.reserve(request(1))).toHaveProperty("granted");
});

test("the tenant's own budget counts, lower or higher than the plan's", async () => {
  const ledger = newLedger();
  await ledger.changeAccess({ ...open, monthlyBudget: 5 });
  expect(await ledger.reserve(request(6))).toMatchObject({ refused: "budget", remaining: 5 });
  await ledger.changeAccess({ ...open, monthlyBudget: 2000 });
  expect(await ledger.reserve(request(2000))).toHaveProperty("granted");
});

test("shards refuse whom the tenant's ledger refuses, those that are there and those that come later", async () => {
  const tenant = crypto.randomUUID();
  const whole = env.LEDGER.getByName(tenant);
  const results = async (shards: number, keyId = KEY) => {
    const account = new Account(env.LEDGER, tenant, shards);
    const asked = Array.from({ length: 24 }, () => account.reserve(request(1, keyId), () => undefined));
    const kinds = (await Promise.all(asked)).map(({ result }) => ("refused" in result ? result.refused : "granted"));
    return [...new Set(kinds)].sort();
  };
  expect(await results(2)).toEqual(["granted", "rate"]);
  await whole.changeAccess({ ...open, revoked: [KEY] });
  expect(await results(2)).toEqual(["revoked"]);
  expect(await results(4)).toEqual(["revoked"]);
  await whole.changeAccess({ ...open, suspended: true });
  expect(await results(4, "fedcba9876543210")).toEqual(["suspended"]);
  await whole.changeAccess(open);
  expect(await results(4, "fedcba9876543210")).toContain("granted");
});

test("a kept answer is not given again to a key that was revoked", async () => {
  const tenant = crypto.randomUUID();
  const idempotent = { key: "once", fingerprint: "f" };
  for (const shards of [1, 3]) {
    const account = new Account(env.LEDGER, `${tenant}-${shards}`, shards);
    const { lease } = await account.reserve({ ...request(), idempotent }, () => undefined);
    await lease.settle(1, METERED, "the answer");
    expect(await account.findAnswer(idempotent, KEY)).toMatchObject({ key: "answered", body: "the answer" });
    await env.LEDGER.getByName(`${tenant}-${shards}`).changeAccess({ ...open, revoked: [KEY] });
    expect(await account.findAnswer(idempotent, KEY)).toEqual({ refused: "revoked" });
  }
});

test("an older state takes nothing of a newer one away", async () => {
  await runInDurableObject(newLedger(), (_, { storage }) => {
    const access = new Access(storage);
    access.take({ version: 3, suspended: true, monthlyBudget: 7, revoked: [] });
    access.take({ version: 2, suspended: false, monthlyBudget: null, revoked: [KEY] });
    expect(access.state()).toEqual({ version: 3, suspended: true, monthlyBudget: 7, revoked: [KEY] });
  });
});
