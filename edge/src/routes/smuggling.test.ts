import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { CHAT, chat, edgeWith, mainService, newTenant, post, refusal, StubService, send } from "../testing/edge.ts";

/** What the edge itself says to a service, and what HTTP needs. */
const EXPECTED = [
  "accept-encoding",
  "authorization",
  "connection",
  "content-length",
  "content-type",
  "host",
  "x-fathom-price",
  "x-fathom-reason",
  "x-request-id",
];

test("no header of the client reaches the service", async () => {
  const smuggled = {
    "x-fathom-reason": "requested",
    "x-fathom-price": "0",
    "x-fathom-priority": "interactive",
    "x-fathom-timeout-ms": "1",
    "x-request-id": "someone-elses",
    "x-fathom-max-depth": "1000",
    "proxy-authorization": `Bearer ${env.SERVICE_SECRET}`,
    "x-authorization": `Bearer ${env.SERVICE_SECRET}`,
    "cf-connecting-ip": "127.0.0.1",
    "cf-worker": "other.example.com",
    "x-forwarded-for": "127.0.0.1",
    "x-forwarded-host": "internal",
    forwarded: "for=127.0.0.1",
    "keep-alive": "timeout=1000",
    te: "trailers",
    cookie: "session=1",
    origin: "https://evil.example.com",
    "content-encoding": "identity",
  };
  const tenant = await newTenant("pro");
  const response = await chat(tenant, {}, { headers: smuggled });
  expect(response.status).toBe(200);
  const { headers, claims } = await mainService.seen(response);
  const odd = Object.keys(headers).filter((name) => !EXPECTED.includes(name));
  // Cloudflare's own: workerd says with them which worker asks.
  expect(odd.filter((name) => !["cf-worker", "cf-ew-via", "cdn-loop", "user-agent"].includes(name))).toEqual([]);
  for (const [name, value] of Object.entries(smuggled)) expect(headers[name]).not.toBe(value);
  expect(headers).toMatchObject({ "x-fathom-reason": "plan", "x-request-id": response.headers.get("x-request-id") });
  expect(headers["x-fathom-price"]).not.toBe("0");
  expect(headers.authorization).not.toContain(tenant.key);
  expect(claims.max_depth).toBe(24);
});

test.each([
  ["another scheme", (key: string) => `Basic ${btoa(key)}`],
  ["two keys", (key: string) => `Bearer ${key}, Bearer ${key}`],
  ["two words", (key: string) => `Bearer ${key} ${key}`],
  ["the service's secret", () => `Bearer ${env.SERVICE_SECRET}`],
  ["no scheme", (key: string) => key],
])("a key in an Authorization header of %s is refused, and no service hears of it", async (_, authorization) => {
  const service = new StubService();
  const edge = edgeWith({ UPSTREAMS: service.url });
  const { key } = await newTenant();
  const init = post(key, CHAT, { headers: { authorization: authorization(key) } });
  expect((await refusal(await edge("/v1/chat/completions", init))).status).toBe(401);
  expect(await service.requests()).toEqual([]);
});

test("a path or a query of the client does not change where the service is asked", async () => {
  const tenant = await newTenant();
  const response = await send("/v1/chat/completions?to=http://10.0.0.1/%2e%2e", post(tenant.key, CHAT));
  expect((await mainService.seen(response)).path).toBe("/v1/chat/completions");
  for (const path of ["/v1//chat/completions", "/v1/chat/completions/../../../healthz/x", "/main/v1/models"]) {
    expect((await send(path, post(tenant.key, CHAT))).status).toBe(404);
  }
});

test("a service cannot send the edge elsewhere with a redirect", async () => {
  const other = new StubService();
  const service = await new StubService().set({ mischief: `redirect ${other.url}` });
  const edge = edgeWith({ UPSTREAMS: service.url });
  const response = await edge("/v1/chat/completions", post((await newTenant()).key, CHAT));
  expect(await refusal(response)).toMatchObject({ status: 502, code: "upstream_failed" });
  expect(await other.requests()).toEqual([]);
});
