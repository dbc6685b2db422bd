import { expect, test } from "vitest";
import { chat, complete, eventually, mainService, newTenant, refusal } from "../testing/edge.ts";

const withKey = (key: string) => ({ headers: { "idempotency-key": key } });

test("the same request with the same key gets the same answer, and is charged and served once", async () => {
  const tenant = await newTenant("exact");
  const first = await chat(tenant, {}, withKey('"k-1"'));
  const again = await chat(tenant, {}, withKey("k-1"));
  expect(again.status).toBe(200);
  expect(again.headers.get("idempotent-replayed")).toBe("true");
  expect(first.headers.has("idempotent-replayed")).toBe(false);
  expect(again.headers.get("x-fathom-depth")).toBe("30");
  expect(await again.text()).toBe(await first.text());
  expect(await tenant.usage()).toMatchObject({ settled: 8 * 30, inFlight: 0 });
  const id = again.headers.get("x-request-id");
  expect((await mainService.requests()).some(({ requestId }) => requestId === id)).toBe(false);
});

test("another body, another endpoint, or a stream with the key is refused; another tenant's key is another", async () => {
  const [tenant, other] = [await newTenant("exact"), await newTenant("exact")];
  await chat(tenant, {}, withKey("k"));
  const conflict = { status: 409, code: "idempotency_conflict", param: "idempotency-key" };
  expect(await refusal(await chat(tenant, { max_tokens: 1 }, withKey("k")))).toMatchObject(conflict);
  expect(await refusal(await complete(tenant, {}, withKey("k")))).toMatchObject(conflict);
  expect((await chat(other, {}, withKey("k"))).headers.has("idempotent-replayed")).toBe(false);
  const stream = await refusal(await chat(tenant, { stream: true }, withKey("s")));
  expect(stream).toMatchObject({ status: 400, param: "idempotency-key" });
  expect((await refusal(await chat(tenant, {}, withKey("two words")))).status).toBe(400);
});

test("while the first is answered, the second is told to come back", async () => {
  const tenant = await newTenant("exact");
  const client = new AbortController();
  const first = chat(tenant, { user: "hang" }, { ...withKey("k"), signal: client.signal }).catch(() => undefined);
  await eventually(tenant.usage, ({ inFlight }) => inFlight === 1);
  const second = await chat(tenant, { user: "hang" }, withKey("k"));
  expect(second.headers.get("retry-after")).toBe("1");
  expect((await refusal(second)).code).toBe("idempotency_conflict");
  client.abort();
  await first;
});

test("what failed may be tried again with its key", async () => {
  const tenant = await newTenant("exact");
  const failed = await chat(tenant, { user: "status 503" }, withKey("k"));
  expect(failed.status).toBe(503);
  expect((await chat(tenant, {}, withKey("k"))).status).toBe(200);
});

test("a short budget shortens the answer where the plan says so, and names the day where that is spent", async () => {
  const clipped = await newTenant("clipped");
  const response = await complete(clipped, { prompt: "hi", max_tokens: 2000 });
  // 18 bytes of prompt at most; 18,000 micro-USD cover 1,200 tokens at the shallowest exit, 18.
  const limit = Number(response.headers.get("x-fathom-max-tokens"));
  expect([response.status, limit]).toEqual([
    200,
    Math.floor(18_000 / Number(response.headers.get("x-fathom-depth"))) - 18,
  ]);
  expect((await mainService.seen(response)).body.max_tokens).toBe(limit);
  const daily = await newTenant("daily");
  const refused = await complete(daily, { prompt: "hi", max_tokens: 2000 });
  expect(Number(refused.headers.get("retry-after"))).toBeLessThanOrEqual(86_400);
  expect(await refusal(refused)).toMatchObject({ status: 402, message: expect.stringContaining("today's budget") });
});
