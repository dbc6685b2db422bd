import { describe, expect, test } from "vitest";
import { FAILURES_TO_OPEN } from "../fleet/circuit-breaker.ts";
import { CHAT, edgeWith, events, eventually, newTenant, post, refusal, StubService } from "../testing/edge.ts";

/** Two services, of which the first is asked first. */
async function pair(mischief: string, variables: Partial<Env> = {}) {
  const first = await new StubService().set({ mischief });
  const second = await new StubService().set({ load: { running: 5, waiting: 0 } });
  const edge = edgeWith({ UPSTREAMS: `${first.url},${second.url}`, ...variables });
  const tenant = await newTenant("exact");
  const ask = async (body: object = {}) =>
    await edge("/v1/chat/completions", post(tenant.key, { ...CHAT, stream: true, ...body }));
  return { first, second, tenant, ask };
}

/** Three prompt tokens and five answered, at 30 layers. */
const ONE_ANSWER = 8 * 30;

describe("before the first byte, another service answers when the first", () => {
  test.each(["status 401", "status 429", "status 503", "page", "break 0"])("says or does '%s'", async (mischief) => {
    const { first, second, tenant, ask } = await pair(mischief);
    const response = await ask(mischief === "break 0" ? { stream: false } : {});
    expect(response.status).toBe(200);
    await response.text();
    const [failed] = await first.requests();
    const answered = await second.seen(response);
    const id = response.headers.get("x-request-id");
    expect([failed?.claims.jti, answered.claims.jti]).toEqual([`${id}.1`, `${id}.2`]);
    expect([failed?.requestId, answered.requestId]).toEqual([id, id]);
    expect(await tenant.usage()).toMatchObject({ settled: ONE_ANSWER, reserved: 0, inFlight: 0 });
  });

  test("does not begin in time", async () => {
    const { first, second, tenant, ask } = await pair("hang", { FIRST_BYTE_TIMEOUT_MS: "100" });
    const response = await ask();
    expect((await events(response)).at(-1)).toBe("[DONE]");
    expect((await second.seen(response)).end).toBe("finished");
    const [end] = (
      await eventually(
        () => first.requests(),
        ([seen]) => seen?.end === "aborted",
      )
    ).map((s) => s.end);
    expect(end).toBe("aborted");
    expect(await tenant.usage()).toMatchObject({ settled: ONE_ANSWER, reserved: 0, inFlight: 0 });
  });
});

test("no other service is asked when the fault is the request's, or the answer has begun", async () => {
  for (const mischief of ["status 400", "status 500", "break 2", "garbage 2"]) {
    const { second, ask } = await pair(mischief);
    await (await ask()).text();
    expect(await second.requests()).toHaveLength(0);
  }
});

test("nobody begins in time: 504, and nothing is charged", async () => {
  const { second, tenant, ask } = await pair("hang", { FIRST_BYTE_TIMEOUT_MS: "100" });
  await second.set({ mischief: "hang" });
  expect(await refusal(await ask())).toMatchObject({ status: 504, code: "timeout" });
  expect(await tenant.usage()).toMatchObject({ settled: 0, reserved: 0, inFlight: 0 });
});

test("a whole answer may take longer than a stream may take to begin", async () => {
  const { ask } = await pair("slow 300", { FIRST_BYTE_TIMEOUT_MS: "100", HEDGE_AFTER_MS: "50" });
  expect((await ask({ stream: false })).status).toBe(200);
});

describe("a hedge", () => {
  test("asks a second service when the first is slow; the first is stopped, and one answer is charged", async () => {
    const { first, second, tenant, ask } = await pair("hang", { HEDGE_AFTER_MS: "50" });
    const response = await ask();
    expect((await events(response)).at(-1)).toBe("[DONE]");
    expect((await second.seen(response)).end).toBe("finished");
    const seen = await eventually(
      () => first.requests(),
      ([one]) => one?.end === "aborted",
    );
    expect(seen[0]?.end).toBe("aborted");
    expect(await tenant.usage()).toMatchObject({ settled: ONE_ANSWER, reserved: 0, inFlight: 0 });
  });

  test("the first may still win; the second is stopped", async () => {
    const { first, second, tenant, ask } = await pair("slow 200", { HEDGE_AFTER_MS: "50" });
    await second.set({ mischief: "hang" });
    const response = await ask();
    expect((await events(response)).at(-1)).toBe("[DONE]");
    expect((await first.seen(response)).end).toBe("finished");
    const seen = await eventually(
      () => second.requests(),
      ([one]) => one?.end === "aborted",
    );
    expect(seen[0]?.end).toBe("aborted");
    expect(await tenant.usage()).toMatchObject({ settled: ONE_ANSWER, reserved: 0, inFlight: 0 });
  });

  test("asks nobody when the first is fast", async () => {
    const { second, ask } = await pair("", { HEDGE_AFTER_MS: "10000" });
    await (await ask()).text();
    expect(await second.requests()).toHaveLength(0);
  });
});

test("a service that fails again and again is left alone, and tried again after its rest", async () => {
  const { first, ask } = await pair("page");
  const tried = async () => (await first.requests()).length;
  for (let i = 0; i < FAILURES_TO_OPEN + 3; i++) await (await ask()).text();
  expect(await tried()).toBe(FAILURES_TO_OPEN);
  await first.set({ mischief: "" });
  await eventually(
    async () => {
      await (await ask()).text();
      return await tried();
    },
    (count) => count > FAILURES_TO_OPEN + 1,
  );
  expect((await first.requests()).at(-1)?.end).toBe("finished");
});

test("when every service is left alone the refusal comes at once", async () => {
  const { second, tenant, ask } = await pair("page");
  await second.set({ mischief: "page" });
  for (let i = 0; i < FAILURES_TO_OPEN; i++) await (await ask()).text();
  expect(await refusal(await ask())).toMatchObject({ status: 503, code: "upstream_unavailable" });
  expect(await second.requests()).toHaveLength(FAILURES_TO_OPEN);
  expect(await tenant.usage()).toMatchObject({ settled: 0, reserved: 0, inFlight: 0 });
});

test.each(["break 2", "no account"])(
  "a service whose answers end with '%s' is left alone, though each begins well",
  async (mischief) => {
    const service = await new StubService().set({ mischief });
    const edge = edgeWith({ UPSTREAMS: service.url });
    const { key } = await newTenant("exact");
    const ask = () => edge("/v1/chat/completions", post(key, { ...CHAT, stream: true }));
    for (let i = 0; i < FAILURES_TO_OPEN; i++) expect((await events(await ask())).at(-1)).toContain("upstream_failed");
    expect(await refusal(await ask())).toMatchObject({ status: 503, code: "upstream_unavailable" });
    expect(await service.requests()).toHaveLength(FAILURES_TO_OPEN);
  },
);
