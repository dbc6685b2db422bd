import { evictDurableObject, runDurableObjectAlarm, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { newKey } from "../auth/key-store.ts";
import type { Directory } from "./directory.ts";
import { unwrap } from "./outcome.ts";
import { Publication } from "./publication.ts";

const BY = { actor: "test", requestId: "r" };
const newDirectory = () => env.DIRECTORY.getByName(crypto.randomUUID());
const newName = () => `t-${crypto.randomUUID()}`;

async function withKey(directory: DurableObjectStub<Directory>, tenant: string) {
  const { key: _, ...kept } = await newKey();
  const spec = { ...kept, label: null, scopes: ["inference" as const], expiresAt: null };
  unwrap(await directory.createKey(tenant, "pro", spec, BY));
  return kept;
}

test("tenants, keys and log survive an eviction, and the secret is not among them", async () => {
  const directory = newDirectory();
  const tenant = newName();
  const { id } = await withKey(directory, tenant);
  await evictDurableObject(directory);
  expect(unwrap(await directory.key(id))).toMatchObject({ tenant, status: "active" });
  expect((await directory.audit({ limit: 10 }, undefined)).entries).toHaveLength(2);
});

test("the log can only be added to", async () => {
  const directory = newDirectory();
  unwrap(await directory.createTenant({ name: newName(), plan: "pro", monthlyBudget: null }, BY));
  await runInDurableObject(directory, (_, { storage }) => {
    expect(() => storage.sql.exec("DELETE FROM audit")).toThrow("append-only");
    expect(() => storage.sql.exec("UPDATE audit SET actor = 'nobody'")).toThrow("append-only");
  });
  expect((await directory.audit({ limit: 10 }, undefined)).entries).toHaveLength(1);
});

test("a change that the ledger could not be told is not lost", async () => {
  const directory = newDirectory();
  const tenant = newName();
  const { id } = await withKey(directory, tenant);
  const broken = { getByName: () => ({ changeAccess: () => Promise.reject(new Error("the ledger is away")) }) };
  await runInDurableObject(directory, async (_, { storage }) => {
    const sql = storage.sql;
    sql.exec("UPDATE keys SET revoked_at = 1, revision = revision + 1 WHERE id = ?", id);
    const cut = new Publication(sql, { ...env, LEDGER: broken as unknown as Env["LEDGER"] });
    expect(await cut.publish(tenant)).toBe(false);
    expect(cut.pending()).toEqual([tenant]);
    await storage.setAlarm(Date.now() + 60_000);
  });
  expect(await env.LEDGER.getByName(tenant).barred(id)).toBeUndefined();
  expect(await runDurableObjectAlarm(directory)).toBe(true);
  expect(await env.LEDGER.getByName(tenant).barred(id)).toEqual({ refused: "revoked" });
  expect(await env.KEYS.get(`key:${id}`)).toBeNull();
});

test("a revocation counts although KV is away, and KV is told later", async () => {
  const directory = newDirectory();
  const tenant = newName();
  const { id } = await withKey(directory, tenant);
  const away = { delete: () => Promise.reject(new Error("KV is away")) } as unknown as KVNamespace;
  await runInDurableObject(directory, async (_, { storage }) => {
    const sql = storage.sql;
    sql.exec("UPDATE keys SET revoked_at = 1, revision = revision + 1 WHERE id = ?", id);
    const cut = new Publication(sql, { ...env, KEYS: away });
    expect(await cut.publish(tenant)).toBe(true);
    expect(cut.pending()).toEqual([tenant]);
    await storage.setAlarm(Date.now() + 60_000);
  });
  expect(await env.LEDGER.getByName(tenant).barred(id)).toEqual({ refused: "revoked" });
  expect(await env.KEYS.get(`key:${id}`)).not.toBeNull();
  expect(await runDurableObjectAlarm(directory)).toBe(true);
  expect(await env.KEYS.get(`key:${id}`)).toBeNull();
});

test("of changes at once the last one is what requests read", async () => {
  const directory = newDirectory();
  const tenant = newName();
  const { id } = await withKey(directory, tenant);
  const plans = ["free", "pro", "enterprise", "free", "pro", "enterprise"];
  await Promise.all(plans.map((plan) => directory.changeTenant(tenant, { plan }, BY)));
  const { plan } = unwrap(await directory.tenant(tenant));
  expect(await env.KEYS.get(`key:${id}`, "json")).toMatchObject({ plan });
});

test("a change of a tenant with many keys reaches all of them, some at once and the others by and by", async () => {
  const directory = newDirectory();
  const tenant = newName();
  const keys = await Promise.all(Array.from({ length: 250 }, () => withKey(directory, tenant)));
  unwrap(await directory.changeTenant(tenant, { plan: "free" }, BY));
  const behind = async () => {
    const records = await Promise.all(keys.map(({ id }) => env.KEYS.get<{ plan: string }>(`key:${id}`, "json")));
    return records.filter((record) => record?.plan !== "free").length;
  };
  expect(await behind()).toBe(50);
  expect(await runDurableObjectAlarm(directory)).toBe(true);
  expect(await behind()).toBe(0);
});
