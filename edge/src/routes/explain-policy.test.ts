import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { admin, answered } from "../testing/admin.ts";
import { chat, complete, newTenant, post, refusal, send } from "../testing/edge.ts";

const ask = (key: string, body: object) => send("/v1/policy/explain", post(key, body));
const askAdmin = (body: object) => send("/admin/policy/explain", post(env.ADMIN_SECRET, body));

test("explains what a request of the caller's gets", async () => {
  const tenant = await newTenant("pro");
  const response = await ask(tenant.key, { load: 0 });
  expect(response.status).toBe(200);
  const { chosen, plan } = await response.json<{ chosen: object; plan: object }>();
  expect(chosen).toEqual({ depth: 24, reason: "plan" });
  expect(plan).toMatchObject({ name: "pro", default: 24 });
  expect((await chat(tenant, { fathom: { depth: 24 } })).headers.get("x-fathom-depth")).toBe("24");
});

test("reckons with what is left of the caller's budget", async () => {
  const tenant = await newTenant("poor");
  const left = async () =>
    (await (await ask(tenant.key, { load: 0 })).json<{ remaining_micro_usd: number }>()).remaining_micro_usd;
  const before = await left();
  await complete(tenant, { max_tokens: 5 });
  const { settled } = await tenant.usage();
  expect(settled).toBeGreaterThan(0);
  expect(await left()).toBe(before - settled);
});

test("the tenant's own budget counts in place of the plan's", async () => {
  const tenant = await newTenant("poor");
  await answered(200, admin("PATCH", `/tenants/${tenant.name}`, { monthly_budget_micro_usd: 12_345 }));
  const explained = await (await ask(tenant.key, { load: 0 })).json<{ remaining_micro_usd: number }>();
  expect(explained.remaining_micro_usd).toBe(12_345);
});

test("any situation can be given, for any plan", async () => {
  const situation = { exits: [8, 16, 32], load: 4, remaining_micro_usd: 1_000_000, prompt_tokens: 10, max_tokens: 10 };
  const explained = await (await askAdmin({ plan: "enterprise", ...situation })).json<{
    exits: object[];
    chosen: object;
  }>();
  expect(explained.exits).toMatchObject([{ verdict: "plan" }, { verdict: "offered" }, { verdict: "load" }]);
  expect(explained.chosen).toEqual({ depth: 16, reason: "load" });
  expect(await refusal(await askAdmin({ plan: "free", ...situation, load: 0, fathom: { depth: 32 } }))).toMatchObject({
    code: "depth_not_allowed",
  });
});

test("a virtual model is explained as it would run", async () => {
  const explained = await askAdmin({ plan: "pro", model: "fathom@18", load: 0 });
  expect(await explained.json()).toMatchObject({ chosen: { depth: 18, reason: "requested" } });
});

test.each([
  [{ plan: "golden" }, "plan"],
  [{ plan: "free", load: -1 }, "load"],
  [{ plan: "free", exits: [3, 2] }, "exits"],
  [{ plan: "free", colour: 1 }, "colour"],
] as const)("refuses %j", async (body, param) => {
  expect(await refusal(await askAdmin(body))).toMatchObject({ status: 400, code: "invalid_request", param });
});

test("the administrator's is for the administrator", async () => {
  const { key } = await newTenant("pro");
  expect(await refusal(await send("/admin/policy/explain", post(key, { plan: "free" })))).toMatchObject({
    status: 401,
  });
});
