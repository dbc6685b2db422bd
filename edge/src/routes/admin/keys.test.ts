import { env } from "cloudflare:workers";
import { beforeAll, expect, test, vi } from "vitest";
import { parseApiKey } from "../../auth/api-key.ts";
import { findKeyHolder } from "../../auth/key-store.ts";
import { runLine } from "../../batch/run-line.ts";
import type { KeyDescription } from "../../directory/records.ts";
import { parsePlans } from "../../policy/plan.ts";
import { admin, answered } from "../../testing/admin.ts";
import { CHAT, chat, newTenant, post, refusal, send, type TestTenant } from "../../testing/edge.ts";

type NewKey = KeyDescription & { key: string };

let tenant: TestTenant;
beforeAll(async () => {
  tenant = await newTenant();
});

const create = (body: unknown = {}) => answered<NewKey>(201, admin("POST", `/tenants/${tenant.name}/keys`, body));
const using = (key: string): TestTenant => ({ ...tenant, key });
const unknown = { status: 401, code: "invalid_api_key", message: "The API key is wrong." };

test("a key has a label, scopes and an expiry, and its secret is shown once", async () => {
  const expires_at = Math.floor(Date.now() / 1000) + 3600;
  const { key, ...made } = await create({ label: "ci", scopes: ["inference"], expires_at });
  expect(made).toMatchObject({
    object: "api_key",
    tenant: tenant.name,
    label: "ci",
    scopes: ["inference"],
    last4: key.slice(-4),
    status: "active",
    expires_at,
    revoked_at: null,
  });
  expect(await answered(200, admin("GET", `/keys/${made.id}`))).toEqual(made);
  expect((await chat(using(key))).status).toBe(200);
});

test("keys of a tenant are listed, newest first, and no other tenant's", async () => {
  const other = await newTenant();
  const own = await newTenant();
  const second = await answered<NewKey>(201, admin("POST", `/tenants/${own.name}/keys`, {}));
  const list = (query: string) =>
    answered<{ data: KeyDescription[]; has_more: boolean }>(200, admin("GET", `/tenants/${own.name}/keys${query}`));
  const { data } = await list("");
  expect(data.map(({ id }) => id)).toEqual([second.id, own.key.split("_")[1]]);
  expect(await list("?limit=1")).toMatchObject({ has_more: true, data: [{ id: second.id }] });
  expect((await list(`?after=${second.id}`)).data).toHaveLength(1);
  expect((await list(`?after=${other.key.split("_")[1]}`)).data).toHaveLength(0);
});

test("a revoked key is as wrong as any, from the next request on, even where KV still has it", async () => {
  const { id, key } = await create();
  expect((await chat(using(key))).status).toBe(200);
  const record = (await env.KEYS.get(`key:${id}`)) ?? "";
  const before = await tenant.usage();
  const revoked = await answered<KeyDescription>(200, admin("POST", `/keys/${id}/revoke`));
  expect(revoked.status).toBe("revoked");
  expect(await env.KEYS.get(`key:${id}`)).toBeNull();
  expect(await refusal(await chat(using(key)))).toMatchObject(unknown);

  // As a cache that is a minute behind has it.
  await env.KEYS.put(`key:${id}`, record);
  expect(await refusal(await chat(using(key)))).toMatchObject(unknown);
  const headers = { authorization: `Bearer ${key}` };
  for (const path of ["/v1/models", "/v1/files", "/v1/batches"]) {
    expect(await refusal(await send(path, { headers }))).toMatchObject(unknown);
  }
  expect(await refusal(await send("/v1/policy/explain", post(key, {})))).toMatchObject(unknown);
  expect(await tenant.usage()).toEqual(before);
  expect((await chat(tenant)).status).toBe(200);

  expect(await answered(200, admin("POST", `/keys/${id}/revoke`))).toEqual(revoked);
  expect(await refusal(await admin("PATCH", `/keys/${id}`, { label: "back" }))).toMatchObject({ param: "id" });
});

test("a line of a batch is refused once its key is revoked or its tenant suspended, and costs nothing", async () => {
  const own = await newTenant();
  const keyId = parseApiKey(own.key)?.publicId ?? "";
  const run = async () =>
    await runLine(env, { waitUntil: () => undefined }, parsePlans(JSON.parse(env.PLANS ?? "{}"), "PLANS"), {
      holder: { tenant: own.name, keyId, planName: "enterprise" },
      endpoint: "/v1/chat/completions",
      request: { custom_id: "a", method: "POST", url: "/v1/chat/completions", body: CHAT },
      leaseId: crypto.randomUUID(),
      failures: 0,
    });
  await answered(200, admin("PATCH", `/tenants/${own.name}`, { status: "suspended" }));
  expect(await run()).toMatchObject({ kind: "done", ok: false, result: expect.stringContaining("permission_denied") });
  await answered(200, admin("POST", `/keys/${keyId}/revoke`));
  expect(await run()).toMatchObject({ kind: "done", ok: false, result: expect.stringContaining("invalid_api_key") });
  expect(await own.usage()).toMatchObject({ settled: 0, reserved: 0 });
});

test("an expired key is as wrong as any", async () => {
  const { id, key } = await create({ expires_at: Math.floor(Date.now() / 1000) + 60 });
  expect((await chat(using(key))).status).toBe(200);
  expect(await findKeyHolder(env.KEYS, key, Date.now() + 61_000)).toBeUndefined();
  vi.useFakeTimers({ now: Date.now() + 61_000, toFake: ["Date"] });
  try {
    expect(await refusal(await chat(using(key)))).toMatchObject(unknown);
    expect(await answered(200, admin("GET", `/keys/${id}`))).toMatchObject({ status: "expired" });
  } finally {
    vi.useRealTimers();
  }
});

test("a key opens only what its scopes name", async () => {
  const { id, key } = await create({ scopes: ["usage"] });
  expect(await refusal(await chat(using(key)))).toMatchObject({ status: 403, code: "permission_denied" });
  await answered(200, admin("PATCH", `/keys/${id}`, { scopes: ["usage", "inference"], label: null }));
  expect((await chat(using(key))).status).toBe(200);
});

test("a rotated key is replaced at once", async () => {
  const old = await create({ label: "app", scopes: ["inference"] });
  const rotated = await answered<NewKey & { replaces: KeyDescription }>(201, admin("POST", `/keys/${old.id}/rotate`));
  expect(rotated).toMatchObject({ label: "app", scopes: ["inference"], tenant: tenant.name, status: "active" });
  expect(rotated.replaces).toMatchObject({ id: old.id, status: "revoked" });
  expect((await chat(using(rotated.key))).status).toBe(200);
  expect(await refusal(await chat(using(old.key)))).toMatchObject(unknown);
  expect(await refusal(await admin("POST", `/keys/${old.id}/rotate`, {}))).toMatchObject({ status: 400, param: "id" });
});

test("a rotated key may live on for a while", async () => {
  const old = await create();
  const rotated = await answered<NewKey & { replaces: KeyDescription }>(
    201,
    admin("POST", `/keys/${old.id}/rotate`, { overlap_seconds: 3600 }),
  );
  expect(rotated.expires_at).toBeNull();
  expect(rotated.replaces.status).toBe("active");
  expect(rotated.replaces.expires_at).toBeGreaterThan(Date.now() / 1000 + 3500);
  expect((await chat(using(old.key))).status).toBe(200);
  expect((await chat(using(rotated.key))).status).toBe(200);
});

test("a key for a tenant on another plan names the plan", async () => {
  const got = await refusal(await admin("POST", "/keys", { tenant: tenant.name, plan: "free" }));
  expect(got).toMatchObject({ status: 400, code: "invalid_request", param: "plan" });
  expect((await admin("POST", "/keys", { tenant: tenant.name, plan: "enterprise" })).status).toBe(201);
});

test.each([
  ["POST", "/tenants/T/keys", { scopes: [] }, "scopes"],
  ["POST", "/tenants/T/keys", { scopes: ["admin"] }, "scopes.0"],
  ["POST", "/tenants/T/keys", { scopes: ["usage", "usage"] }, "scopes"],
  ["POST", "/tenants/T/keys", { expires_at: 1 }, "expires_at"],
  ["POST", "/tenants/T/keys", { expires_at: "tomorrow" }, "expires_at"],
  ["POST", "/tenants/T/keys", { label: "" }, "label"],
  ["POST", "/tenants/T/keys", { tenant: "other" }, "tenant"],
  ["PATCH", "/keys/0", {}, null],
  ["PATCH", "/keys/0", { tenant: "other" }, "tenant"],
  ["POST", "/keys/0/rotate", { overlap_seconds: -1 }, "overlap_seconds"],
])("%s %s %j names the field", async (method, path, body, param) => {
  const got = await refusal(await admin(method, path.replace("T", tenant.name), body));
  expect(got).toMatchObject({ status: 400, code: "invalid_request", param });
});

test.each([
  ["POST", "/tenants/nobody-here/keys", {}],
  ["GET", "/tenants/nobody-here/keys", undefined],
  ["GET", "/keys/0000000000000000", undefined],
  ["PATCH", "/keys/0000000000000000", { label: "x" }],
  ["POST", "/keys/0000000000000000/revoke", undefined],
  ["POST", "/keys/0000000000000000/rotate", undefined],
])("%s %s is not found", async (method, path, body) => {
  expect(await refusal(await admin(method, path, body))).toMatchObject({ status: 404, code: "not_found" });
});
