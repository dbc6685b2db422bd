import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { chat, complete, eventually, newTenant, refusal, send, type TestTenant } from "../testing/edge.ts";
import type { UsageLine, UsageTotal } from "../usage/usage-report.ts";

interface Report {
  tenant: string;
  data: UsageLine[];
  total: UsageTotal;
}

const get = (path: string, key: string) => send(path, { headers: { authorization: `Bearer ${key}` } });

/** The tenant's report once it has as many requests. */
async function reported(tenant: TestTenant, requests: number): Promise<Report> {
  return await eventually(
    async () => await (await get("/v1/usage", tenant.key)).json<Report>(),
    ({ total }) => total.requests >= requests,
  );
}

test("every answer stands in the report: by day, key and depth", async () => {
  const tenant = await newTenant("pro");
  const whole = await chat(tenant);
  const stream = await complete(tenant, { stream: true });
  await stream.text();
  const shallow = await chat(tenant, { fathom: { depth: 12 } });
  expect([whole.status, stream.status, shallow.status]).toEqual([200, 200, 200]);

  const report = await reported(tenant, 3);
  const day = new Date().toISOString().slice(0, 10);
  const key_id = tenant.key.split("_")[1];
  expect(report).toMatchObject({ object: "usage", tenant: tenant.name, to: day });
  expect(report.data).toEqual([
    { day, key_id, depth: 12, requests: 1, prompt_tokens: 3, completion_tokens: 5, layer_tokens: 96, micro_usd: 1 },
    { day, key_id, depth: 24, requests: 2, prompt_tokens: 6, completion_tokens: 10, layer_tokens: 384, micro_usd: 4 },
  ]);
  expect(report.total).toMatchObject({ requests: 3, micro_usd: 5 });
  expect((await tenant.usage()).settled).toBe(5);

  const rows = await env.USAGE.prepare("SELECT * FROM usage WHERE tenant = ? ORDER BY depth, exit")
    .bind(tenant.name)
    .all();
  expect(rows.results[0]).toMatchObject({
    request_id: shallow.headers.get("x-request-id"),
    ledger: tenant.name,
    plan: "pro",
    model: "stub-30",
    service: expect.stringContaining("/main"),
    exit: "fixed",
    reason: "requested",
    status: "complete",
  });
});

test("a stream that was left is in it with what was delivered", async () => {
  const tenant = await newTenant("exact");
  const response = await chat(tenant, { stream: true, user: "break 3" });
  await response.text();
  const { total } = await reported(tenant, 1);
  // Three tokens of answer; the prompt is an estimate.
  expect(total).toMatchObject({ completion_tokens: 3, prompt_tokens: 9, layer_tokens: 12 * 30, micro_usd: 12 * 30 });
  const { results } = await env.USAGE.prepare("SELECT status FROM usage WHERE tenant = ?").bind(tenant.name).all();
  expect(results).toEqual([{ status: "service" }]);
});

test("as CSV, too", async () => {
  const tenant = await newTenant("free");
  await chat(tenant);
  await reported(tenant, 1);
  const response = await get("/v1/usage?format=csv", tenant.key);
  expect(response.headers.get("content-type")).toBe("text/csv; charset=utf-8");
  expect(response.headers.get("content-disposition")).toMatch(/^attachment; filename="usage-[\d-]+\.csv"$/);
  const [head, line] = (await response.text()).split("\r\n");
  expect(head).toBe("day,key_id,depth,requests,prompt_tokens,completion_tokens,layer_tokens,micro_usd");
  expect(line).toMatch(/^\d{4}-\d\d-\d\d,[0-9a-f]{16},18,1,3,5,144,2$/);
});

test("a tenant sees its own usage only; the administrator sees anybody's", async () => {
  const [mine, other] = [await newTenant("free"), await newTenant("free")];
  await chat(other);
  await reported(other, 1);
  const asked = await (await get(`/v1/usage?tenant=${other.name}`, mine.key)).json<Report>();
  expect(asked).toMatchObject({ tenant: mine.name, data: [] });
  expect((await get(`/admin/usage?tenant=${other.name}`, mine.key)).status).toBe(401);
  const shown = await (await get(`/admin/usage?tenant=${other.name}`, env.ADMIN_SECRET)).json<Report>();
  expect(shown).toMatchObject({ tenant: other.name, total: { requests: 1 } });
  expect(await refusal(await get("/admin/usage", env.ADMIN_SECRET))).toMatchObject({ status: 400, param: "tenant" });
});

test.each([
  ["from=2026-02-30", "from"],
  ["to=x' OR 1=1 --", "to"],
  ["from=2026-03-01&to=2026-02-01", "from"],
  ["format=xml", "format"],
])("refuses %s", async (query, param) => {
  const { key } = await newTenant("free");
  expect(await refusal(await get(`/v1/usage?${query}`, key))).toMatchObject({ code: "invalid_request", param });
});
