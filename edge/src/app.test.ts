import { expect, test } from "vitest";
import { chat, newTenant, send } from "./testing/edge.ts";

test("says that it is well without a key", async () => {
  const response = await send("/healthz");
  expect(response.status).toBe(200);
  expect(await response.json()).toEqual({ status: "ok" });
});

test("pages of any origin may call the API, with the headers that clients send", async () => {
  const response = await send("/v1/chat/completions", {
    method: "OPTIONS",
    headers: {
      origin: "https://example.com",
      "access-control-request-method": "POST",
      "access-control-request-headers": "authorization,content-type,x-stainless-lang",
    },
  });
  expect(response.status).toBe(204);
  expect(response.headers.get("access-control-allow-origin")).toBe("*");
  expect(response.headers.get("access-control-allow-methods")).toContain("POST");
  expect(response.headers.get("access-control-allow-headers")).toContain("x-stainless-lang");
  expect(response.headers.get("access-control-allow-credentials")).toBeNull();
});

test("answers, streams and refusals alike may be read by pages, and carry an id", async () => {
  const tenant = await newTenant();
  const answers = [await chat(tenant), await chat(tenant, { stream: true }), await chat(tenant, { messages: [] })];
  for (const response of answers) {
    await response.text();
    expect(response.headers.get("access-control-allow-origin")).toBe("*");
    expect(response.headers.get("access-control-expose-headers")).toContain("x-fathom-depth");
    expect(response.headers.get("x-content-type-options")).toBe("nosniff");
    expect(response.headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
    expect(response.headers.get("cache-control")).toBe("no-store");
  }
});
