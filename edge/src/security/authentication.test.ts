import { env } from "cloudflare:workers";
import { beforeAll, describe, expect, test } from "vitest";
import { admin, answered } from "../testing/admin.ts";
import { CHAT, mainService, newTenant, post, refusal, send, type TestTenant } from "../testing/edge.ts";
import { type Endpoint, endpoints } from "../testing/operations.ts";

let tenant: TestTenant;
beforeAll(async () => {
  tenant = await newTenant();
});

const closed = endpoints().filter(({ security }) => security.length > 0);
const ofCustomers = closed.filter(({ path }) => path.startsWith("/v1/"));
const ofAdmin = closed.filter(({ path }) => path.startsWith("/admin/"));
const name = ({ method, path }: Endpoint) => `${method} ${path}`;

async function ask({ method, path }: Endpoint, authorization?: string): Promise<unknown> {
  const response = await send(path, { method, ...(authorization !== undefined && { headers: { authorization } }) });
  return await refusal(response);
}

test("every endpoint is a customer's, the administrator's, or meant for all", () => {
  expect(ofCustomers.length + ofAdmin.length).toBe(closed.length);
  const open = endpoints().filter(({ security }) => security.length === 0);
  expect(open.map(name).sort()).toEqual(["GET /docs", "GET /healthz", "GET /openapi.json"]);
});

describe.each(closed.map((endpoint) => [name(endpoint), endpoint] as const))("%s", (_, endpoint) => {
  test("is closed without a key", async () => {
    expect(await ask(endpoint)).toMatchObject({ status: 401, code: "missing_api_key" });
  });

  test("is closed to whatever is no key", async () => {
    const wrong = [
      "Bearer",
      "Bearer null",
      "Bearer undefined",
      "Bearer fk_",
      `Bearer ${"f".repeat(100_000)}`,
      `Basic ${btoa(`x:${env.ADMIN_SECRET}`)}`,
      `Bearer ${env.SERVICE_SECRET}`,
      `Bearer ${env.ADMIN_SECRET}, Bearer ${tenant.key}`,
      `Bearer ${tenant.key}, Bearer ${env.ADMIN_SECRET}`,
    ];
    for (const authorization of wrong) {
      expect(await ask(endpoint, authorization)).toMatchObject({ status: 401, code: "invalid_api_key" });
    }
  });
});

test("a customer's key opens nothing of the administrator's, and the other way round", async () => {
  for (const endpoint of ofAdmin) {
    expect(await ask(endpoint, `Bearer ${tenant.key}`)).toMatchObject({ status: 401, code: "invalid_api_key" });
  }
  for (const endpoint of ofCustomers) {
    expect(await ask(endpoint, `Bearer ${env.ADMIN_SECRET}`)).toMatchObject({ status: 401, code: "invalid_api_key" });
  }
});

test("a key in the query or in another header is none", async () => {
  for (const headers of [{ "x-api-key": tenant.key }, { "proxy-authorization": `Bearer ${tenant.key}` }]) {
    const response = await send(`/v1/models?api_key=${tenant.key}&key=${tenant.key}`, { headers });
    expect(await refusal(response)).toMatchObject({ status: 401, code: "missing_api_key" });
  }
});

test("unknown, wrong, expired and revoked keys are answered alike, to the byte", async () => {
  const { id, key } = await answered<{ id: string; key: string }>(
    201,
    admin("POST", `/tenants/${tenant.name}/keys`, {}),
  );
  await answered(200, admin("POST", `/keys/${id}/revoke`));
  const ended = await answered<{ id: string; key: string }>(201, admin("POST", `/tenants/${tenant.name}/keys`, {}));
  const record = await env.KEYS.get<object>(`key:${ended.id}`, "json");
  await env.KEYS.put(`key:${ended.id}`, JSON.stringify({ ...record, expires_at: Date.now() - 1 }));
  const flipped = tenant.key.replace(/.$/, (end) => (end === "0" ? "1" : "0"));
  const unknown = tenant.key.replace(/^fk_.{16}/, `fk_${"0".repeat(16)}`);
  const answers = [];
  for (const wrong of [unknown, flipped, ended.key, key, "nonsense"]) {
    const response = await send("/v1/chat/completions", post(wrong, CHAT));
    const headers = [...response.headers].filter(([header]) => header !== "x-request-id");
    answers.push({ status: response.status, headers, body: await response.text() });
  }
  for (const answer of answers) expect(answer).toEqual(answers[0]);
});

test("a caller cannot name its tenant, plan, depth or service in a header", async () => {
  const poor = await newTenant("free");
  const headers = {
    "x-fathom-depth": "30",
    "x-fathom-reason": "requested",
    "x-fathom-price": "0",
    "x-tenant": tenant.name,
    "x-request-id": "chosen-by-the-client",
    "x-forwarded-host": "evil.example",
  };
  const response = await send("/v1/chat/completions", post(poor.key, CHAT, { headers }));
  expect(response.headers.get("x-fathom-depth")).toBe("18");
  expect(response.headers.get("x-request-id")).not.toBe("chosen-by-the-client");
  await response.text();
  const seen = await mainService.seen(response);
  expect(seen.claims).toMatchObject({ max_depth: 18 });
  expect(JSON.stringify(seen.headers)).not.toMatch(/evil\.example|chosen-by-the-client/);
  expect(JSON.stringify(seen.headers)).not.toContain(poor.key);
});
