import fc from "fast-check";
import { beforeAll, describe, expect, test } from "vitest";
import { MAX_BODY_BYTES } from "../http/read-json.ts";
import { CHAT, chat, complete, mainService, newTenant, post, refusal, send, type TestTenant } from "../testing/edge.ts";

let tenant: TestTenant;
beforeAll(async () => {
  tenant = await newTenant("pro");
});

const asChat = (init: RequestInit) => send("/v1/chat/completions", init);

describe("without a valid key", () => {
  const OTHER_KEY = `fk_${"0".repeat(16)}_${"0".repeat(64)}`;

  test("no key", async () => {
    const response = await asChat({ method: "POST", body: JSON.stringify(CHAT) });
    expect(response.headers.get("www-authenticate")).toBe("Bearer");
    expect(await refusal(response)).toMatchObject({
      status: 401,
      code: "missing_api_key",
      type: "authentication_error",
    });
  });

  test.each([
    ["of nobody", `Bearer ${OTHER_KEY}`],
    ["of another form", "Bearer sk-abc"],
    ["of another scheme", "Basic YTpi"],
    ["empty", "Bearer "],
    ["two", `Bearer ${OTHER_KEY} ${OTHER_KEY}`],
  ])("a key %s", async (_, authorization) => {
    const response = await asChat(post("", CHAT, { headers: { authorization } }));
    expect(await refusal(response)).toMatchObject({ status: 401, code: "invalid_api_key" });
  });

  test("a key with a wrong secret", async () => {
    const key = tenant.key.replace(/.{4}$/, (end) => (end === "0000" ? "1111" : "0000"));
    expect(await refusal(await asChat(post(key, CHAT)))).toMatchObject({ status: 401, code: "invalid_api_key" });
  });

  test("the administrator's secret is no key, and neither is the services'", async () => {
    for (const secret of ["admin-secret-of-the-tests", "service-secret-of-the-tests"]) {
      expect(await refusal(await asChat(post(secret, CHAT)))).toMatchObject({ code: "invalid_api_key" });
    }
  });

  test("the models are not shown either", async () => {
    expect(await refusal(await send("/v1/models"))).toMatchObject({ status: 401, code: "missing_api_key" });
  });
});

describe("a body that is not a request", () => {
  test.each(["", "{", "nonsense", '{"model": "fathom",}', "[".repeat(100_000)])("not JSON: %.20s", async (body) => {
    const got = await refusal(await asChat(post(tenant.key, CHAT, { body })));
    expect(got).toMatchObject({ status: 400, code: "invalid_json", type: "invalid_request_error" });
  });

  test.each(["text/plain", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"])(
    "of type %s",
    async (type) => {
      const response = await asChat(post(tenant.key, CHAT, { headers: { "content-type": type } }));
      expect(await refusal(response)).toMatchObject({ status: 400, code: "invalid_request", param: "content-type" });
    },
  );

  test("the content type may have parameters", async () => {
    const headers = { "content-type": "Application/JSON; charset=utf-8" };
    expect((await asChat(post(tenant.key, CHAT, { headers }))).status).toBe(200);
  });

  test("too large, with its length announced", async () => {
    const content = "x".repeat(MAX_BODY_BYTES);
    const response = await chat(tenant, { messages: [{ role: "user", content }] });
    expect(await refusal(response)).toMatchObject({ status: 413, code: "body_too_large" });
  });

  test("too large, in chunks", async () => {
    const chunk = new TextEncoder().encode("x".repeat(100_000));
    let sent = 0;
    const body = new ReadableStream({
      pull(controller) {
        sent += chunk.length;
        controller.enqueue(chunk);
        // Without an end: it must be cut off.
        if (sent > 50 * MAX_BODY_BYTES) controller.close();
      },
    });
    const response = await asChat(post(tenant.key, CHAT, { body }));
    expect(await refusal(response)).toMatchObject({ status: 413, code: "body_too_large" });
    expect(sent).toBeLessThan(10 * MAX_BODY_BYTES);
  });
});

describe("a request with a wrong field", () => {
  test.each([
    [{ model: undefined }, "model"],
    [{ messages: undefined }, "messages"],
    [{ messages: [] }, "messages"],
    [{ messages: "hello" }, "messages"],
    [{ messages: [{ role: "robot", content: "x" }] }, "messages.0.role"],
    [{ messages: [{ role: "user", content: 5 }] }, "messages.0.content"],
    [{ messages: [{ role: "user", content: [{ type: "image_url" }] }] }, "messages.0.content"],
    [{ temperature: -1 }, "temperature"],
    [{ temperature: "hot" }, "temperature"],
    [{ top_p: 0 }, "top_p"],
    [{ max_tokens: 0 }, "max_tokens"],
    [{ max_tokens: -5 }, "max_tokens"],
    [{ max_tokens: 1e30 }, "max_tokens"],
    [{ max_completion_tokens: 1.5 }, "max_completion_tokens"],
    [{ stop: "" }, "stop"],
    [{ stop: [5] }, "stop"],
    [{ n: 2 }, "n"],
    [{ stream: "yes" }, "stream"],
    [{ fathom: 24 }, "fathom"],
    [{ fathom: { depth: "deep" } }, "fathom.depth"],
    [{ fathom: { depth: 0 } }, "fathom.depth"],
    [{ fathom: { depht: 24 } }, "fathom.depht"],
    [{ fathom: { threshold: 2 } }, "fathom.threshold"],
    [{ fathom: { threshold: 0.9 } }, "fathom.threshold"],
    [{ fathom: { exit: "speculative", threshold: 0.9 } }, "fathom.threshold"],
    [{ fathom: { exit: "entropy" } }, "fathom.exit"],
  ])("%j names the field", async (more, param) => {
    const got = await refusal(await chat(tenant, more));
    expect(got).toMatchObject({ status: 400, code: "invalid_request", param });
    expect(got.message).toContain(`'${param}'`);
  });

  test.each([
    [{ prompt: "" }, "prompt"],
    [{ prompt: [] }, "prompt"],
    [{ prompt: [1, -1] }, "prompt.1"],
    [{ prompt: ["a", "b"] }, "prompt"],
  ])("%j of /v1/completions, too", async (more, param) => {
    expect(await refusal(await complete(tenant, more))).toMatchObject({ code: "invalid_request", param });
  });

  test.each(["__proto__", "constructor", "prototype"])("the depth dial has no field %s", async (name) => {
    const body = `{"model":"fathom","messages":[{"role":"user","content":"x"}],"fathom":{"${name}":{"depth":30}}}`;
    const got = await refusal(await asChat(post(tenant.key, CHAT, { body })));
    expect(got).toMatchObject({ status: 400, code: "invalid_request" });
  });

  test("an unknown model", async () => {
    expect(await refusal(await chat(tenant, { model: "gpt-5" }))).toMatchObject({
      status: 404,
      code: "model_not_found",
      type: "not_found_error",
      param: "model",
      message: expect.stringContaining("'stub-30'"),
    });
  });

  test("a depth where there is no exit", async () => {
    expect(await refusal(await chat(tenant, { fathom: { depth: 20 } }))).toMatchObject({
      status: 400,
      code: "invalid_depth",
      param: "fathom.depth",
      message: expect.stringContaining("12, 18, 24, 30"),
    });
  });

  test("a depth beyond the plan", async () => {
    expect(await refusal(await chat(tenant, { fathom: { depth: 30 } }))).toMatchObject({
      status: 403,
      code: "depth_not_allowed",
      type: "permission_error",
      message: expect.stringContaining("plan 'pro' runs 12 to 24 layers"),
    });
  });
});

test("whatever the body is, the answer is an answer or an OpenAI-shaped refusal, and nothing stays reserved", async () => {
  const own = await newTenant("exact");
  const value = fc.jsonValue({ maxDepth: 2 });
  const wild = fc.oneof(
    value,
    fc.record(
      {
        model: fc.oneof(fc.constant("fathom"), value),
        messages: fc.oneof(
          fc.array(fc.record({ role: fc.constantFrom("user", "assistant"), content: fc.string() })),
          value,
        ),
        max_tokens: fc.oneof(fc.integer(), value),
        stream: fc.oneof(fc.boolean(), value),
        fathom: fc.oneof(fc.record({ depth: fc.oneof(fc.constantFrom(18, 24, 30, "auto"), value) }), value),
      },
      { requiredKeys: ["model", "messages"] },
    ),
  );
  await fc.assert(
    fc.asyncProperty(wild, async (body) => {
      const response = await asChat(post(own.key, JSON.stringify(body)));
      if (response.status === 200) {
        await response.text();
        return;
      }
      expect([400, 403, 404]).toContain(response.status);
      const { message, type, code } = await refusal(response);
      expect([message, type, code].every((text) => typeof text === "string" && text !== "")).toBe(true);
    }),
    { numRuns: 60 },
  );
  expect(await own.usage()).toMatchObject({ reserved: 0, inFlight: 0 });
  expect((await mainService.requests()).length).toBeGreaterThan(0);
});

describe("a wrong address", () => {
  test.each(["/", "/v1", "/v1/embeddings", "/admin", "/v1/chat/completions/x", "/%2e%2e/etc"])("%s", async (path) => {
    const got = await refusal(await send(path));
    expect(got).toMatchObject({ status: 404, code: "not_found", type: "not_found_error" });
  });

  test.each([
    ["GET", "/v1/chat/completions", "POST, OPTIONS"],
    ["PUT", "/v1/completions", "POST, OPTIONS"],
    ["POST", "/v1/models", "GET, HEAD, OPTIONS"],
    ["DELETE", "/healthz", "GET, HEAD, OPTIONS"],
    ["GET", "/admin/keys", "POST, OPTIONS"],
  ])("%s %s", async (method, path, allow) => {
    const response = await send(path, { method });
    expect(response.headers.get("allow")).toBe(allow);
    expect(await refusal(response)).toMatchObject({ status: 405, code: "method_not_allowed" });
  });
});
