import { ChatCompletionChunk, Completion, ErrorBody } from "@fathom/shared";
import { describe, expect, test } from "vitest";
import {
  CHAT,
  chat,
  complete,
  dataOf,
  edgeWith,
  events,
  eventually,
  mainService,
  newTenant,
  post,
  StubService,
  type TestTenant,
} from "../testing/edge.ts";

/** On the plan "exact" one layer-token costs one micro-USD. The prompt's 17 bytes and its message count as nine tokens when estimated. */
const newExactTenant = () => newTenant("exact");
const ESTIMATED_PROMPT = 9 * 30;

const settled = (tenant: TestTenant) => eventually(tenant.usage, ({ inFlight }) => inFlight === 0);

describe("a stream", () => {
  test("passes every event on, with headers before and the account at the end", async () => {
    const tenant = await newTenant("pro");
    const response = await chat(tenant, { stream: true });
    expect(response.status).toBe(200);
    expect(Object.fromEntries(response.headers)).toMatchObject({
      "content-type": "text/event-stream; charset=utf-8",
      "x-fathom-depth": "24",
      "x-fathom-reason": "plan",
      "x-ratelimit-remaining-requests": "599",
      "server-timing": expect.stringContaining("service;dur="),
      "x-accel-buffering": "no",
    });
    const data = await events(response);
    expect(data.at(-1)).toBe("[DONE]");
    const chunks = data.slice(0, -1).map((text) => ChatCompletionChunk.parse(JSON.parse(text)));
    expect(chunks.map(({ choices }) => choices[0]?.delta.content ?? "").join("")).toBe("w0 w1 w2 w3 w4");
    expect(chunks.at(-1)?.fathom).toMatchObject({ depth: 24, cost: { layer_tokens: 8 * 24 } });
    expect(await tenant.usage()).toMatchObject({ settled: 2, reserved: 0, inFlight: 0 });
  });

  test("of /v1/completions, too", async () => {
    const data = await events(await complete(await newTenant(), { stream: true }));
    const chunks = data.slice(0, -1).map((text) => Completion.parse(JSON.parse(text)));
    expect(chunks.map(({ choices }) => choices[0]?.text ?? "").join("")).toBe("w0 w1 w2 w3 w4");
    expect(data.at(-1)).toBe("[DONE]");
  });

  test("arrives while it is being made", async () => {
    const response = await chat(await newTenant(), { stream: true, user: "endless" });
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    while (dataOf(text).length < 3) text += (await reader?.read())?.value ?? "";
    expect((await mainService.seen(response)).end).toBe("open");
    await reader?.cancel();
  });
});

describe("a client that leaves", () => {
  test("in the middle stops the service, and pays for what it got", async () => {
    const tenant = await newExactTenant();
    const response = await chat(tenant, { stream: true, user: "endless" });
    const reader = response.body?.pipeThrough(new TextDecoderStream()).getReader();
    let text = "";
    while (dataOf(text).length < 10) text += (await reader?.read())?.value ?? "";
    await reader?.cancel();

    const { end } = await eventually(
      () => mainService.seen(response),
      (seen) => seen.end !== "open",
    );
    expect(end).toBe("aborted");
    const usage = await settled(tenant);
    expect(usage).toMatchObject({ reserved: 0, inFlight: 0 });
    expect(usage.settled).toBeGreaterThanOrEqual(ESTIMATED_PROMPT + 9 * 30);
    const tokens = dataOf(text).length;
    // Some more may have been on the way.
    expect(usage.settled).toBeLessThanOrEqual(ESTIMATED_PROMPT + (tokens + 50) * 30);
  });

  test("before the answer begins stops the service and pays nothing", async () => {
    const tenant = await newExactTenant();
    const controller = new AbortController();
    const response = chat(tenant, { user: "hang", model: "fathom" }, { signal: controller.signal });
    const mine = () => tenant.usage();
    await eventually(mine, ({ inFlight }) => inFlight === 1);
    const before = await eventually(
      () => mainService.requests(),
      (all) => all.some(({ body, end }) => body.user === "hang" && end === "open"),
    );
    controller.abort();
    await expect(response).rejects.toThrow();
    expect(await settled(tenant)).toMatchObject({ settled: 0, reserved: 0, inFlight: 0 });
    const hanging = before.find(({ body, end }) => body.user === "hang" && end === "open");
    const after = await eventually(
      () => mainService.requests(),
      (all) => all.some(({ requestId, end }) => requestId === hanging?.requestId && end === "aborted"),
    );
    expect(after.find(({ requestId }) => requestId === hanging?.requestId)?.end).toBe("aborted");
  });
});

describe("a service that fails in the middle", () => {
  /** Of a service of its own: one that fails again and again is left alone. */
  const ask = async (tenant: TestTenant, user: string) => {
    const edge = edgeWith({ UPSTREAMS: new StubService().url });
    return await edge("/v1/chat/completions", post(tenant.key, { ...CHAT, stream: true, user }));
  };

  test.each(["break 3", "half event 3", "garbage 3"])("becomes an error event without [DONE]: %s", async (user) => {
    const tenant = await newExactTenant();
    const data = await events(await ask(tenant, user));
    expect(data).toHaveLength(4);
    for (const text of data.slice(0, 3)) ChatCompletionChunk.parse(JSON.parse(text));
    expect(ErrorBody.parse(JSON.parse(data[3] ?? "")).error).toMatchObject({ code: "upstream_failed" });
    expect(await settled(tenant)).toMatchObject({ settled: ESTIMATED_PROMPT + 3 * 30, reserved: 0 });
  });

  test("may say so itself", async () => {
    const tenant = await newExactTenant();
    const data = await events(await ask(tenant, "error event 2"));
    expect(data).toHaveLength(3);
    expect(ErrorBody.parse(JSON.parse(data[2] ?? "")).error.message).toBe("the service's own words");
    expect(await settled(tenant)).toMatchObject({ settled: ESTIMATED_PROMPT + 2 * 30, reserved: 0 });
  });

  test("an answer without its account is not whole", async () => {
    const tenant = await newExactTenant();
    const data = await events(await ask(tenant, "no account"));
    expect(data).not.toContain("[DONE]");
    expect(JSON.parse(data.at(-1) ?? "")).toMatchObject({ error: { code: "upstream_failed" } });
    expect(await settled(tenant)).toMatchObject({ reserved: 0 });
  });

  test("an answer that takes too long is cut off", async () => {
    const tenant = await newExactTenant();
    const edge = edgeWith({ REQUEST_TIMEOUT_SECONDS: "1" });
    const response = await edge("/v1/chat/completions", post(tenant.key, { ...CHAT, stream: true, user: "silent 2" }));
    const data = await events(response);
    expect(data).toHaveLength(3);
    expect(JSON.parse(data[2] ?? "")).toMatchObject({ error: { code: "timeout" } });
    expect(await settled(tenant)).toMatchObject({ settled: ESTIMATED_PROMPT + 2 * 30, reserved: 0 });
  });
});

test("a client that stops reading is cut off in time, and pays for what it took", async () => {
  const tenant = await newExactTenant();
  const edge = edgeWith({ REQUEST_TIMEOUT_SECONDS: "1" });
  const response = await edge("/v1/chat/completions", post(tenant.key, { ...CHAT, stream: true, user: "endless" }));
  const reader = response.body?.getReader();
  await reader?.read();
  const usage = await settled(tenant);
  expect(usage).toMatchObject({ reserved: 0, inFlight: 0 });
  expect(usage.settled).toBeGreaterThanOrEqual(ESTIMATED_PROMPT);
  expect(usage.settled).toBeLessThanOrEqual(ESTIMATED_PROMPT + 50 * 30);
});
