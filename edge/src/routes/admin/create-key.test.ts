import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { chat, post, refusal, send } from "../../testing/edge.ts";

const create = (body: unknown, secret: string = env.ADMIN_SECRET) => send("/admin/keys", post(secret, body));

test("makes a key that opens the API on the tenant's plan", async () => {
  const response = await create({ tenant: "acme", plan: "free" });
  expect(response.status).toBe(201);
  const { id, key, ...rest } = await response.json<{ id: string; key: string }>();
  expect(rest).toEqual({ tenant: "acme", plan: "free" });
  expect(key.startsWith(`fk_${id}_`)).toBe(true);
  const answer = await chat({ name: "acme", key, usage: () => Promise.reject(new Error("not asked")) });
  expect(answer.headers.get("x-fathom-depth")).toBe("18");
});

test("only for the administrator", async () => {
  const body = { tenant: "acme", plan: "free" };
  const headers = { "content-type": "application/json" };
  const without = await send("/admin/keys", { method: "POST", headers, body: JSON.stringify(body) });
  expect(await refusal(without)).toMatchObject({ status: 401, code: "missing_api_key" });
  for (const secret of ["wrong", `${env.ADMIN_SECRET}x`, env.ADMIN_SECRET.slice(1), env.SERVICE_SECRET]) {
    expect(await refusal(await create(body, secret))).toMatchObject({ status: 401, code: "invalid_api_key" });
  }
});

test.each([
  [{ tenant: "acme" }, "plan"],
  [{ tenant: "acme", plan: "golden" }, "plan"],
  [{ tenant: "acme", plan: "constructor" }, "plan"],
  [{ plan: "free" }, "tenant"],
  [{ tenant: "", plan: "free" }, "tenant"],
  [{ tenant: "../acme", plan: "free" }, "tenant"],
  [{ tenant: "a b", plan: "free" }, "tenant"],
  [{ tenant: "acme", plan: "free", admin: true }, "admin"],
])("%j names the field", async (body, param) => {
  expect(await refusal(await create(body))).toMatchObject({ status: 400, code: "invalid_request", param });
});

test("pages of other origins may not call it", async () => {
  const response = await send("/admin/keys", { method: "OPTIONS", headers: { origin: "https://example.com" } });
  expect(response.headers.get("access-control-allow-origin")).toBeNull();
});
