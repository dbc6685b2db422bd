import { env } from "cloudflare:workers";
import { afterEach, beforeAll, expect, test } from "vitest";
import { admin, answered } from "../testing/admin.ts";
import { createBatch, uploaded } from "../testing/batches.ts";
import { edgeWith, newTenant, post, refusal, type TestTenant } from "../testing/edge.ts";
import { jsonEndpoints } from "../testing/operations.ts";

let tenant: TestTenant;
beforeAll(async () => {
  tenant = await newTenant();
});

/** In this very realm, so that a polluted prototype would be seen here. */
const ask = edgeWith({});

afterEach(() => {
  const plain: Record<string, unknown> = {};
  expect([plain.polluted, plain.depth, plain.plan, [].length, Object.keys(Object.prototype)]).toEqual([
    undefined,
    undefined,
    undefined,
    0,
    [],
  ]);
});

const POISONS = [
  '"__proto__":{"polluted":1,"depth":30,"plan":"enterprise"}',
  '"constructor":{"prototype":{"polluted":1,"depth":30}}',
  '"prototype":{"polluted":1}',
  '"fathom":{"__proto__":{"depth":30,"polluted":1}}',
  '"fathom":{"constructor":{"prototype":{"polluted":1}}}',
  '"metadata":{"__proto__":{"polluted":1}}',
  '"stream_options":{"__proto__":{"polluted":1}}',
  '"profile":{"__proto__":{"polluted":1}}',
];

const endpoints = jsonEndpoints().map((endpoint) => [`${endpoint.method} ${endpoint.path}`, endpoint] as const);

test.each(endpoints)("%s leaves the prototypes alone", async (_, { method, path }) => {
  const key = path.startsWith("/admin/") ? env.ADMIN_SECRET : tenant.key;
  for (const poison of POISONS) {
    for (const rest of ["", ',"model":"fathom","prompt":"x","messages":[{"role":"user","content":"x"}]']) {
      const response = await ask(path, post(key, {}, { method, body: `{${poison}${rest}}` }));
      expect([200, 201, 400, 404]).toContain(response.status);
      await response.text();
    }
  }
});

test("a poisoned dial gives no depth", async () => {
  const free = await newTenant("free");
  const body = `{"model":"fathom","messages":[{"role":"user","content":"x"}],"__proto__":{"fathom":{"depth":30}}}`;
  const response = await ask("/v1/chat/completions", post(free.key, {}, { body }));
  expect(response.headers.get("x-fathom-depth")).toBe("18");
});

test.each(["__proto__", "constructor", "toString", "hasOwnProperty", "valueOf"])(
  "there is no plan %s",
  async (plan) => {
    const name = `t-${crypto.randomUUID()}`;
    for (const asked of [
      admin("POST", "/tenants", { tenant: name, plan }),
      admin("POST", "/keys", { tenant: name, plan }),
      admin("PATCH", `/tenants/${tenant.name}`, { plan }),
      admin("POST", "/policy/explain", { plan, exits: [12], load: 0 }),
    ]) {
      expect(await refusal(await asked)).toMatchObject({ status: 400, code: "invalid_request", param: "plan" });
    }
  },
);

test("a tenant may be called as a field of every object is", async () => {
  for (const name of ["constructor", "toString", "prototype"]) {
    const { key } = await answered<{ key: string }>(201, admin("POST", "/keys", { tenant: name, plan: "pro" }));
    const response = await ask("/v1/models", { headers: { authorization: `Bearer ${key}` } });
    expect(response.status).toBe(200);
  }
  const refused = await refusal(await admin("POST", "/keys", { tenant: "__proto__", plan: "pro" }));
  expect(refused).toMatchObject({ status: 400, param: "tenant" });
});

test("a batch's metadata is data", async () => {
  const fileId = await uploaded(tenant, '{"custom_id":"a"}');
  const batch = await (await createBatch(tenant, fileId, { metadata: { constructor: "a", toString: "b" } })).json<{
    metadata: Record<string, string>;
  }>();
  expect(batch.metadata).toEqual({ constructor: "a", toString: "b" });
});
