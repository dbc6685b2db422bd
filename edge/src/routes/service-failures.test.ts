import type { ChatCompletion } from "@fathom/shared";
import { describe, expect, test } from "vitest";
import { CHAT, chat, edgeWith, newTenant, post, refusal, StubService } from "../testing/edge.ts";

/** Nothing listens on the discard port. */
const NOWHERE = "http://127.0.0.1:9";

describe("before the first byte, a failure is refused, costs nothing and is given back:", () => {
  test.each([
    ["status 400", 400, "unsupported_exit_policy", undefined],
    ["status 429", 429, "overloaded", "7"],
    ["status 500", 502, "upstream_failed", undefined],
    ["status 504", 504, "timeout", undefined],
    ["status 503", 503, "upstream_unavailable", "7"],
    // The edge's own secret is wrong then: not the client's key.
    ["status 401", 502, "upstream_failed", undefined],
    ["page", 502, "upstream_failed", undefined],
    ["no account", 502, "upstream_failed", undefined],
    ["half", 502, "upstream_failed", undefined],
    ["break 0", 503, "upstream_unavailable", undefined],
  ])("%s", async (user, status, code, retryAfter) => {
    const tenant = await newTenant("two-a-minute");
    const response = await chat(tenant, { user });
    if (retryAfter !== undefined) expect(response.headers.get("retry-after")).toBe(retryAfter);
    expect(await refusal(response)).toMatchObject({ status, code });
    expect(await tenant.usage()).toMatchObject({ settled: 0, reserved: 0, inFlight: 0 });
    expect((await chat(tenant)).headers.get("x-ratelimit-remaining-requests")).toBe("1");
  });

  test("a page instead of a stream", async () => {
    const tenant = await newTenant();
    const got = await refusal(await chat(tenant, { user: "page", stream: true }));
    expect(got).toMatchObject({ status: 502, code: "upstream_failed" });
    expect(await tenant.usage()).toMatchObject({ reserved: 0, inFlight: 0 });
  });

  test("no answer in time", async () => {
    const tenant = await newTenant();
    const edge = edgeWith({ REQUEST_TIMEOUT_SECONDS: "1" });
    const response = await edge("/v1/chat/completions", post(tenant.key, { ...CHAT, user: "hang" }));
    expect(await refusal(response)).toMatchObject({ status: 504, code: "timeout" });
    expect(await tenant.usage()).toMatchObject({ settled: 0, reserved: 0, inFlight: 0 });
  });
});

describe("services that are away", () => {
  test("all of them", async () => {
    const tenant = await newTenant();
    const ill = await new StubService().set({ status: 500 });
    const edge = edgeWith({ UPSTREAMS: `${NOWHERE},${ill.url}` });
    const response = await edge("/v1/chat/completions", post(tenant.key, CHAT));
    expect(response.headers.get("retry-after")).toBe("2");
    expect(await refusal(response)).toMatchObject({ status: 503, code: "upstream_unavailable" });
    const models = await edge("/v1/models", { headers: { authorization: `Bearer ${tenant.key}` } });
    expect(await refusal(models)).toMatchObject({ status: 503, code: "upstream_unavailable" });
    expect(await tenant.usage()).toMatchObject({ settled: 0, reserved: 0, inFlight: 0 });
  });

  test("one of them: the others answer", async () => {
    const tenant = await newTenant();
    const well = new StubService();
    const edge = edgeWith({ UPSTREAMS: `${NOWHERE},${well.url}` });
    const response = await edge("/v1/chat/completions", post(tenant.key, CHAT));
    expect(response.status).toBe(200);
    expect((await well.seen(response)).end).toBe("finished");
  });

  test("one that went away after it was last asked: the next one answers", async () => {
    const tenant = await newTenant();
    const first = await new StubService().set({ load: { running: 0, waiting: 0 } });
    const second = await new StubService().set({ load: { running: 5, waiting: 0 } });
    const edge = edgeWith({ UPSTREAMS: `${first.url},${second.url}` });
    await (await edge("/v1/chat/completions", post(tenant.key, CHAT))).text();
    expect(await first.requests()).toHaveLength(1);
    await first.set({ status: 503 });
    const response = await edge("/v1/chat/completions", post(tenant.key, CHAT));
    expect(response.status).toBe(200);
    expect((await second.seen(response)).end).toBe("finished");
  });
});

describe("several services", () => {
  test("the least loaded one is asked", async () => {
    const tenant = await newTenant();
    const busy = await new StubService().set({ load: { running: 5, waiting: 0 } });
    const idle = await new StubService().set({ load: { running: 1, waiting: 0 } });
    const edge = edgeWith({ UPSTREAMS: `${busy.url},${idle.url}` });
    await (await edge("/v1/chat/completions", post(tenant.key, CHAT))).text();
    expect(await busy.requests()).toHaveLength(0);
    expect(await idle.requests()).toHaveLength(1);
  });

  test("requests at once are spread before the services report them", async () => {
    const tenant = await newTenant();
    const services = [new StubService(), new StubService()];
    const edge = edgeWith({ UPSTREAMS: services.map(({ url }) => url).join(",") });
    const ask = async () =>
      await (await edge("/v1/chat/completions", post(tenant.key, { ...CHAT, stream: true }))).text();
    await ask();
    const before = await Promise.all(services.map(async (service) => (await service.requests()).length));
    await Promise.all(Array.from({ length: 8 }, ask));
    const after = await Promise.all(services.map(async (service) => (await service.requests()).length));
    const gained = after.map((count, i) => count - (before[i] ?? 0));
    expect(gained[0]).toBeGreaterThan(0);
    expect(gained[1]).toBeGreaterThan(0);
  });

  test("each model is looked for where it is, and a fallback never changes the model", async () => {
    const tenant = await newTenant();
    const small = await new StubService().set({ model: "small", load: { running: 0, waiting: 0 } });
    const large = await new StubService().set({ model: "large", load: { running: 5, waiting: 0 } });
    const edge = edgeWith({ UPSTREAMS: `${small.url},${large.url}` });
    const ask = (model: string) => edge("/v1/chat/completions", post(tenant.key, { ...CHAT, model }));
    expect((await (await ask("large")).json<ChatCompletion>()).model).toBe("large");
    expect((await (await ask("fathom")).json<ChatCompletion>()).model).toBe("small");
    expect(await refusal(await ask("medium"))).toMatchObject({ code: "model_not_found" });
    await small.set({ status: 503 });
    expect(await refusal(await ask("small"))).toMatchObject({ status: 503 });
  });
});
