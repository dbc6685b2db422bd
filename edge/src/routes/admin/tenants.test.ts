import { expect, test } from "vitest";
import type { AuditDescription, TenantDescription } from "../../directory/records.ts";
import { admin, answered } from "../../testing/admin.ts";
import { chat, newTenant, post, refusal, send, type TestTenant } from "../../testing/edge.ts";

interface List<T> {
  data: T[];
  has_more: boolean;
  last_id: string | null;
}

const newName = () => `t-${crypto.randomUUID()}`;
const show = (name: string) => answered<TenantDescription>(200, admin("GET", `/tenants/${name}`));

test("a tenant is made once, and found", async () => {
  const tenant = newName();
  const made = await answered<TenantDescription>(201, admin("POST", "/tenants", { tenant, plan: "pro" }));
  expect(made).toMatchObject({
    id: tenant,
    object: "tenant",
    plan: "pro",
    status: "active",
    monthly_budget_micro_usd: null,
  });
  expect(await show(tenant)).toEqual(made);
  const again = await refusal(await admin("POST", "/tenants", { tenant, plan: "pro" }));
  expect(again).toMatchObject({ status: 400, code: "invalid_request", param: "tenant" });
  expect(await refusal(await admin("GET", `/tenants/${newName()}`))).toMatchObject({ status: 404, param: "tenant" });
});

test("tenants are listed page by page, newest first", async () => {
  const names = [newName(), newName(), newName()];
  for (const tenant of names) await answered(201, admin("POST", "/tenants", { tenant, plan: "free" }));
  const first = await answered<List<TenantDescription>>(200, admin("GET", "/tenants?limit=2"));
  expect(first.data.map(({ id }) => id)).toEqual([names[2], names[1]]);
  expect(first.has_more).toBe(true);
  const next = await answered<List<TenantDescription>>(200, admin("GET", `/tenants?limit=1&after=${first.last_id}`));
  expect(next.data.map(({ id }) => id)).toEqual([names[0]]);
});

test("of a suspended tenant nothing is served, from the next request on, and nothing is consumed", async () => {
  const tenant = await newTenant();
  expect((await chat(tenant)).status).toBe(200);
  const before = await tenant.usage();
  const change = admin("PATCH", `/tenants/${tenant.name}`, { status: "suspended" });
  expect(await answered(200, change)).toMatchObject({ status: "suspended" });
  for (const ask of refusedRequests(tenant)) {
    expect(await refusal(await ask())).toMatchObject({ status: 403, code: "permission_denied" });
  }
  expect(await tenant.usage()).toEqual(before);
  await answered(200, admin("PATCH", `/tenants/${tenant.name}`, { status: "active" }));
  expect((await chat(tenant)).status).toBe(200);
});

test("a budget of the tenant's own takes the place of the plan's", async () => {
  const tenant = await newTenant("exact");
  await answered(200, admin("PATCH", `/tenants/${tenant.name}`, { monthly_budget_micro_usd: 10 }));
  expect(await refusal(await chat(tenant))).toMatchObject({ status: 402, code: "insufficient_budget" });
  const usage = () => answered(200, admin("GET", `/tenants/${tenant.name}/usage`));
  expect(await usage()).toMatchObject({ tenant: tenant.name, settled_micro_usd: 0, monthly_budget_micro_usd: 10 });
  await answered(200, admin("PATCH", `/tenants/${tenant.name}`, { monthly_budget_micro_usd: null }));
  expect((await chat(tenant)).status).toBe(200);
  const { settled } = await tenant.usage();
  expect(settled).toBeGreaterThan(0);
  expect(await usage()).toMatchObject({
    settled_micro_usd: settled,
    in_flight: 0,
    monthly_budget_micro_usd: 5_000_000_000,
  });
});

test("a change of plan reaches the tenant's keys", async () => {
  const tenant = await newTenant("enterprise");
  expect((await chat(tenant)).headers.get("x-fathom-depth")).toBe("30");
  await answered(200, admin("PATCH", `/tenants/${tenant.name}`, { plan: "free" }));
  expect((await chat(tenant)).headers.get("x-fathom-depth")).toBe("18");
});

test("the plans are listed as they are configured", async () => {
  const { data } = await answered<List<{ id: string; priority: number }>>(200, admin("GET", "/plans"));
  expect(data.find(({ id }) => id === "pro")).toMatchObject({ object: "plan", priority: 4, max_tokens: 2048 });
});

test("every change is in the log, with what was before and after", async () => {
  const tenant = newName();
  await answered(201, admin("POST", "/tenants", { tenant, plan: "free" }));
  const response = await admin("PATCH", `/tenants/${tenant}`, { plan: "pro" });
  await response.text();
  const { key } = await answered<{ key: string }>(201, admin("POST", `/tenants/${tenant}/keys`, { label: "ci" }));
  const log = await answered<List<AuditDescription>>(200, admin("GET", `/audit?tenant=${tenant}`));
  expect(log.data.map(({ action }) => action)).toEqual(["key.create", "tenant.change", "tenant.create"]);
  const [, changed] = log.data;
  expect(changed).toMatchObject({
    actor: "admin",
    target: tenant,
    before: { plan: "free" },
    after: { plan: "pro" },
    request_id: response.headers.get("x-request-id"),
  });
  expect(JSON.stringify(log)).not.toContain(key.slice(-20));
  const page = await answered<List<AuditDescription>>(200, admin("GET", `/audit?tenant=${tenant}&limit=1`));
  expect(page).toMatchObject({ has_more: true, data: [{ action: "key.create" }] });
  const rest = await answered<List<AuditDescription>>(
    200,
    admin("GET", `/audit?tenant=${tenant}&after=${page.last_id}`),
  );
  expect(rest.data.map(({ action }) => action)).toEqual(["tenant.change", "tenant.create"]);
});

test.each([
  ["POST", "/tenants", { plan: "pro" }, "tenant"],
  ["POST", "/tenants", { tenant: "a/b", plan: "pro" }, "tenant"],
  ["POST", "/tenants", { tenant: "a", plan: "golden" }, "plan"],
  ["POST", "/tenants", { tenant: "a", plan: "pro", monthly_budget_micro_usd: -1 }, "monthly_budget_micro_usd"],
  ["POST", "/tenants", { tenant: "a", plan: "pro", monthly_budget_micro_usd: 0.5 }, "monthly_budget_micro_usd"],
  ["POST", "/tenants", { tenant: "a", plan: "pro", status: "suspended" }, "status"],
  ["PATCH", "/tenants/x", { status: "gone" }, "status"],
  ["PATCH", "/tenants/x", { plan: "__proto__" }, "plan"],
  ["PATCH", "/tenants/x", {}, null],
  ["GET", "/tenants?limit=0", undefined, "limit"],
  ["GET", "/tenants?order=asc", undefined, "order"],
  ["GET", "/audit?after=x", undefined, "after"],
  ["GET", "/audit?tenant=a%20b", undefined, "tenant"],
])("%s %s %j names the field", async (method, path, body, param) => {
  const got = await refusal(await admin(method, path, body));
  expect(got).toMatchObject({ status: 400, code: "invalid_request", param });
});

function refusedRequests(tenant: TestTenant): (() => Promise<Response>)[] {
  const headers = { authorization: `Bearer ${tenant.key}` };
  return [
    () => chat(tenant),
    () => send("/v1/models", { headers }),
    () => send("/v1/files", { headers }),
    () => send("/v1/batches", { headers }),
    () => send("/v1/policy/explain", post(tenant.key, {})),
  ];
}
