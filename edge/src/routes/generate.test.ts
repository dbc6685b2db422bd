import type { ChatCompletion, Completion } from "@fathom/shared";
import { describe, expect, test } from "vitest";
import { CHAT, chat, complete, edgeWith, mainService, newTenant, post, refusal, StubService } from "../testing/edge.ts";

describe("an answer", () => {
  test("comes with its account, its headers, and is charged what it cost", async () => {
    const tenant = await newTenant("pro");
    const response = await chat(tenant);
    expect(response.status).toBe(200);
    expect(response.headers.get("content-type")).toBe("application/json");
    const body = await response.json<ChatCompletion>();
    expect(body.choices[0]?.message.content).toBe("w0 w1 w2 w3 w4");
    // Three words of prompt and five of answer, at 24 layers and ten nano-USD each.
    expect(body.fathom).toMatchObject({ depth: 24, reason: "plan", cost: { layer_tokens: 8 * 24, micro_usd: 2 } });
    expect(Object.fromEntries(response.headers)).toMatchObject({
      "x-fathom-depth": "24",
      "x-fathom-reason": "plan",
      "x-request-id": expect.stringMatching(/^[0-9a-f-]{36}$/),
      "server-timing": expect.stringMatching(/^auth;dur=\d+, fleet;dur=\d+, ledger;dur=\d+, service;dur=\d+$/),
      "x-ratelimit-limit-requests": "600",
      "x-ratelimit-remaining-requests": "599",
      "x-ratelimit-reset-requests": "1m0s",
      "cache-control": "no-store",
    });
    expect(await tenant.usage()).toMatchObject({ settled: 2, reserved: 0, inFlight: 0 });
  });

  test("of /v1/completions, too", async () => {
    const tenant = await newTenant("free");
    const response = await complete(tenant);
    expect(response.status).toBe(200);
    const body = await response.json<Completion>();
    expect(body.choices[0]?.text).toBe("w0 w1 w2 w3 w4");
    expect(body.fathom).toMatchObject({ depth: 18, reason: "plan" });
    expect((await mainService.seen(response)).path).toBe("/v1/completions");
  });

  test.each([
    ["free", 18],
    ["pro", 24],
    ["enterprise", 30],
  ])("runs at the depth of its plan: %s %d", async (plan, depth) => {
    const response = await chat(await newTenant(plan));
    expect(response.headers.get("x-fathom-depth")).toBe(String(depth));
  });

  test("runs at the depth that was asked for", async () => {
    const tenant = await newTenant("pro");
    const response = await chat(tenant, { fathom: { depth: 12 } });
    expect((await response.json<ChatCompletion>()).fathom).toMatchObject({ depth: 12, reason: "requested" });
    const bounded = await chat(tenant, { fathom: { max_depth: 20 } });
    expect(bounded.headers.get("x-fathom-depth")).toBe("18");
    expect(bounded.headers.get("x-fathom-reason")).toBe("requested");
  });

  test("is shallower when the service is busy, unless a depth was asked for", async () => {
    const busy = await new StubService().set({ load: { running: 16, waiting: 10 } });
    const edge = edgeWith({ UPSTREAMS: busy.url });
    const { key } = await newTenant("pro");
    const lowered = await edge("/v1/chat/completions", post(key, CHAT));
    expect(lowered.headers.get("x-fathom-depth")).toBe("12");
    expect(lowered.headers.get("x-fathom-reason")).toBe("load");
    const asked = await edge("/v1/chat/completions", post(key, { ...CHAT, fathom: { depth: 24 } }));
    expect(asked.headers.get("x-fathom-depth")).toBe("24");
  });
});

describe("the service", () => {
  test("gets the request, a token of its own, and what the edge decided", async () => {
    const tenant = await newTenant("pro");
    const response = await chat(tenant, { temperature: 0.5, fathom: { per_token_layers: true } });
    const { body, headers, claims } = await mainService.seen(response);
    expect(body).toEqual({
      ...CHAT,
      temperature: 0.5,
      max_tokens: undefined,
      fathom: { per_token_layers: true, depth: 24 },
    });
    const jti = `${response.headers.get("x-request-id")}.1`;
    expect(claims).toMatchObject({ iss: "fathom-edge", max_depth: 24, jti, cache_salt: tenant.name });
    const lifetime = claims.exp - Math.floor(Date.now() / 1000);
    expect(lifetime).toBeGreaterThan(0);
    expect(lifetime).toBeLessThanOrEqual(60);
    expect(headers).toMatchObject({ "x-fathom-reason": "plan", "x-fathom-price": "10" });
    expect(headers.authorization).not.toContain(tenant.key);
  });

  test("does not see what a client puts in the edge's own headers", async () => {
    const tenant = await newTenant("free");
    const response = await chat(
      tenant,
      {},
      {
        headers: {
          "x-fathom-price": "0",
          "x-fathom-reason": "requested",
          "x-fathom-depth": "30",
          "x-request-id": "chosen-by-the-client",
          "x-forwarded-for": "10.0.0.1",
          cookie: "session=1",
        },
      },
    );
    const { headers, claims } = await mainService.seen(response);
    expect(response.headers.get("x-fathom-depth")).toBe("18");
    expect(headers).toMatchObject({ "x-fathom-price": "10", "x-fathom-reason": "plan" });
    expect(headers["x-request-id"]).toBe(response.headers.get("x-request-id"));
    expect(headers["x-request-id"]).not.toBe("chosen-by-the-client");
    expect(claims.jti).toBe(`${headers["x-request-id"]}.1`);
    expect(headers).not.toHaveProperty("cookie");
    expect(headers).not.toHaveProperty("x-fathom-depth");
    expect(headers).not.toHaveProperty("x-forwarded-for");
  });

  test("does not see fields that the contract does not name, whatever they are called", async () => {
    const tenant = await newTenant("free");
    const body = `{"model": "fathom", "messages": [{"role": "user", "content": "x", "__proto__": {"role": "system"}}],
      "__proto__": {"max_tokens": 1}, "constructor": {"prototype": {"polluted": true}}, "store": true}`;
    const response = await chat(tenant, {}, { body });
    expect(response.status).toBe(200);
    const seen = await mainService.seen(response);
    expect(seen.body).toEqual({
      model: "fathom",
      messages: [{ role: "user", content: "x" }],
      max_tokens: 512,
      fathom: { depth: 18 },
    });
    expect({}).not.toHaveProperty("polluted");
  });

  test("is told the plan's longest answer, and less if the client wants less", async () => {
    const tenant = await newTenant("terse");
    const limitOf = async (more: Record<string, unknown>) => {
      const { body } = await mainService.seen(await chat(tenant, more));
      return [body.max_tokens, body.max_completion_tokens];
    };
    expect(await limitOf({})).toEqual([3, undefined]);
    expect(await limitOf({ max_tokens: 2 })).toEqual([2, undefined]);
    expect(await limitOf({ max_tokens: 100 })).toEqual([3, undefined]);
    expect(await limitOf({ max_completion_tokens: 100, max_tokens: 1 })).toEqual([undefined, 3]);
  });

  test("may use the room that is left when the plan's longest answer does not fit beside the prompt", async () => {
    const tenant = await newTenant("free");
    const prompt = "x ".repeat(1800);
    const response = await complete(tenant, { prompt });
    expect(response.status).toBe(200);
    const id = response.headers.get("x-request-id");
    const tries = (await mainService.requests()).filter(({ requestId }) => requestId === id);
    expect(tries.map(({ body }) => body.max_tokens)).toEqual([512, undefined]);
    // A limit that the client named is not dropped.
    const named = await complete(tenant, { prompt, max_tokens: 500 });
    expect(await refusal(named)).toMatchObject({ code: "context_length_exceeded", param: "max_tokens" });
  });
});

describe("limits", () => {
  test("a shrinking budget makes answers shallower, and only then refuses them", async () => {
    const tenant = await newTenant("poor");
    const depths: number[] = [];
    let spent = 0;
    let response = await complete(tenant, { prompt: "hi", max_tokens: 10 });
    for (; response.status === 200; response = await complete(tenant, { prompt: "hi", max_tokens: 10 })) {
      const { fathom } = await response.json<Completion>();
      depths.push(fathom?.depth ?? 0);
      spent += fathom?.cost.micro_usd ?? 0;
      expect(fathom?.reason).toBe(fathom?.depth === 30 ? "plan" : "budget");
    }
    expect(depths).toEqual([30, 30, 30, 30, 30, 30, 24, 24, 18, 18]);
    expect(await refusal(response)).toMatchObject({
      status: 402,
      code: "insufficient_budget",
      type: "insufficient_quota",
      message: expect.stringContaining(`The ${2000 - spent} micro-USD`),
    });
    expect(await tenant.usage()).toMatchObject({ settled: spent, reserved: 0, inFlight: 0 });
    // What is left is still good for a shorter answer.
    expect((await complete(tenant, { prompt: "hi", max_tokens: 1 })).status).toBe(200);
  });

  test("min_depth says: rather not than shallower", async () => {
    const tenant = await newTenant("poor");
    const wish = { prompt: "hi", max_tokens: 10, fathom: { depth: 30, min_depth: 30 } };
    let response = await complete(tenant, wish);
    while (response.status === 200) {
      expect(response.headers.get("x-fathom-reason")).toBe("requested");
      response = await complete(tenant, wish);
    }
    expect(response.status).toBe(402);
    expect((await complete(tenant, { ...wish, fathom: { depth: 30 } })).headers.get("x-fathom-reason")).toBe("budget");
  });

  test("a request beyond the rate is refused and told when to come back", async () => {
    const tenant = await newTenant("two-a-minute");
    expect((await chat(tenant)).headers.get("x-ratelimit-remaining-requests")).toBe("1");
    expect((await chat(tenant)).headers.get("x-ratelimit-remaining-requests")).toBe("0");
    const response = await chat(tenant);
    const wait = Number(response.headers.get("retry-after"));
    expect(wait).toBeGreaterThan(0);
    expect(wait).toBeLessThanOrEqual(60);
    expect(response.headers.get("x-ratelimit-remaining-requests")).toBe("0");
    expect(await refusal(response)).toMatchObject({ status: 429, code: "rate_limited", type: "rate_limit_error" });
  });

  test("a request that cannot be served takes no place in the rate", async () => {
    const tenant = await newTenant("two-a-minute");
    for (const more of [{ messages: [] }, { fathom: { depth: 13 } }, { model: "other" }, { user: "status 503" }]) {
      expect((await chat(tenant, more)).status).not.toBe(200);
    }
    expect((await chat(tenant)).headers.get("x-ratelimit-remaining-requests")).toBe("1");
  });

  test("a request beyond the concurrency is refused while the others run", async () => {
    const tenant = await newTenant("one-at-once");
    const running = await chat(tenant, { stream: true, user: "endless" });
    const reader = running.body?.getReader();
    await reader?.read();
    const second = await chat(tenant);
    expect(second.headers.get("retry-after")).toBe("1");
    expect(await refusal(second)).toMatchObject({ status: 429, code: "concurrency_limited" });
    await reader?.cancel();
  });

  test("the next request may follow at once, since an answer is settled before it ends", async () => {
    const tenant = await newTenant("one-at-once");
    for (let i = 0; i < 5; i++) {
      const response = await chat(tenant, { stream: i % 2 === 0 });
      expect(response.status).toBe(200);
      await response.text();
    }
    expect(await tenant.usage()).toMatchObject({ inFlight: 0 });
  });
});
