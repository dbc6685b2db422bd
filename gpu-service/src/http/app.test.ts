import { request as httpRequest } from "node:http";
import {
  ApiError,
  ChatCompletion,
  ChatCompletionChunk,
  Completion,
  ModelList,
  PRICE_HEADER,
  REASON_HEADER,
} from "@fathom/shared";
import { expect, onTestFinished, test } from "vitest";
import { z } from "zod";
import { edgeToken } from "./testing/edge-token.ts";
import {
  errorOf,
  parseSse,
  post,
  type ScriptedServiceOptions,
  scriptedService,
  TINY_TEXT,
} from "./testing/scripted-service.ts";

const SECRET = "a-secret-of-sixteen-or-more";
const CHAT = { model: "tiny", messages: [{ role: "user", content: "Hi" }] };

async function start(options: ScriptedServiceOptions = {}) {
  const started = await scriptedService(options);
  onTestFinished(() => started.close());
  return started;
}

test("a chat is answered whole, with usage and the account of its layers", async () => {
  const { url, engine } = await start({ script: "Hello there." });
  const response = await post(`${url}/v1/chat/completions`, CHAT);
  expect(response.status).toBe(200);
  const body = ChatCompletion.parse(await response.json());
  const count = TINY_TEXT.encode("Hello there.").length;
  const promptTokens = engine.requests[0]?.prompt.length ?? 0;
  expect(body).toMatchObject({
    object: "chat.completion",
    model: "tiny",
    choices: [{ index: 0, message: { role: "assistant", content: "Hello there." }, finish_reason: "stop" }],
    usage: { prompt_tokens: promptTokens, completion_tokens: count, total_tokens: promptTokens + count },
    fathom: { depth: 8, exit: "fixed", reason: "plan", layers: { total: count * 8, histogram: { 8: count } } },
  });
  expect(engine.requests[0]?.prompt).toEqual(await TINY_TEXT.tokens([{ role: "user", content: "Hi" }]));
});

test("a streamed chat begins with the role, carries layers per chunk, and ends with account and [DONE]", async () => {
  const { url } = await start({ script: "Hello there." });
  const body = { ...CHAT, stream: true, fathom: { depth: 4, per_token_layers: true } };
  const response = await post(`${url}/v1/chat/completions`, body);
  expect(response.headers.get("content-type")).toMatch(/^text\/event-stream/);
  const { events, done } = parseSse(await response.text());
  const chunks = z.array(ChatCompletionChunk).parse(events);
  expect(done).toBe(true);
  expect(chunks[0]?.choices[0]?.delta).toEqual({ role: "assistant", content: "" });
  expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("")).toBe("Hello there.");
  const layers = chunks.flatMap((chunk) => chunk.choices[0]?.layers_used ?? []);
  expect(layers).toEqual(TINY_TEXT.encode("Hello there.").map(() => 4));
  expect(chunks.map((chunk) => chunk.choices[0]?.finish_reason).filter(Boolean)).toEqual(["stop"]);
  expect(chunks.slice(0, -1).every((chunk) => chunk.fathom === undefined && !("usage" in chunk))).toBe(true);
  expect(chunks.at(-1)).toMatchObject({
    choices: [],
    fathom: { depth: 4, reason: "requested", layers: { per_token: layers } },
  });
  expect(new Set(chunks.map(({ id }) => id)).size).toBe(1);
});

test("with include_usage every chunk has the field and only the last one the figures", async () => {
  const { url } = await start();
  for (const [path, body] of [
    ["/v1/chat/completions", CHAT],
    ["/v1/completions", { model: "fathom", prompt: "Hi" }],
  ] as const) {
    const response = await post(url + path, { ...body, stream: true, stream_options: { include_usage: true } });
    const { events } = parseSse(await response.text());
    const usages = z
      .array(z.object({ usage: z.unknown() }))
      .parse(events)
      .map(({ usage }) => usage);
    expect(usages.slice(0, -1).every((usage) => usage === null)).toBe(true);
    expect(usages.at(-1)).toMatchObject({ completion_tokens: expect.any(Number) });
  }
});

test("a completion takes text or token ids", async () => {
  const { url, engine } = await start({ script: " sat" });
  for (const prompt of ["the cat", TINY_TEXT.encode("the cat")]) {
    const response = await post(`${url}/v1/completions`, { model: "tiny", prompt, max_tokens: 2 });
    const body = Completion.parse(await response.json());
    expect(body.choices[0]).toMatchObject({ text: " sat", finish_reason: expect.stringMatching(/stop|length/) });
    expect(body.choices[0]?.token_ids).toBeUndefined();
    expect(body.fathom?.depth).toBe(8);
  }
  expect(engine.requests[0]?.prompt).toEqual(engine.requests[1]?.prompt);
});

test("a streamed completion joins to the same text", async () => {
  const { url } = await start({ script: "one two 😀" });
  const response = await post(`${url}/v1/completions`, { model: "tiny", prompt: "x", stream: true });
  const { events, done } = parseSse(await response.text());
  const chunks = z.array(Completion).parse(events);
  expect(chunks.map((chunk) => chunk.choices[0]?.text ?? "").join("")).toBe("one two 😀");
  expect(chunks.at(-1)).toMatchObject({ choices: [], fathom: { depth: 8 } });
  expect(done).toBe(true);
});

test("stop strings cut the answer, and what is sent never contains one", async () => {
  const { url } = await start({ script: "alpha beta###gamma" });
  const response = await post(`${url}/v1/chat/completions`, { ...CHAT, stop: ["###", "nope"] });
  expect(ChatCompletion.parse(await response.json()).choices[0]).toMatchObject({
    message: { content: "alpha beta" },
    finish_reason: "stop",
  });
});

test("sampling, seed and limits reach the engine", async () => {
  const { url, engine } = await start();
  const sampling = { temperature: 0.7, top_p: 0.9, seed: 41 };
  await post(`${url}/v1/chat/completions`, { ...CHAT, ...sampling, max_tokens: 9, max_completion_tokens: 7 });
  await post(`${url}/v1/chat/completions`, CHAT);
  await post(`${url}/v1/chat/completions`, CHAT);
  const [first, second, third] = engine.requests;
  expect(first).toMatchObject({ sampling: { temperature: 0.7, topP: 0.9, seed: 41 }, maxTokens: 7, stopTokenIds: [2] });
  expect(second).toMatchObject({
    sampling: { temperature: 1, topP: 1 },
    maxTokens: 256 - (second?.prompt.length ?? 0),
  });
  expect(second?.sampling.seed).not.toBe(third?.sampling.seed);
});

test("without a tokenizer token ids go in and come out, and texts are refused", async () => {
  const { url } = await start({ script: { tokens: [7, 8] }, tokenizer: false });
  const response = await post(`${url}/v1/completions`, { model: "tiny", prompt: [5, 9] });
  expect(Completion.parse(await response.json()).choices[0]).toMatchObject({ text: "", token_ids: [7, 8] });
  for (const [path, body, param] of [
    ["/v1/chat/completions", CHAT, "messages"],
    ["/v1/completions", { model: "tiny", prompt: "text" }, "prompt"],
    ["/v1/completions", { model: "tiny", prompt: [5], stop: "x" }, "stop"],
  ] as const) {
    const error = await errorOf(await post(url + path, body));
    expect(error).toMatchObject({ status: 400, code: "invalid_request", param });
    expect(error.message).toMatch(/no tokenizer/);
  }
});

const C = "/v1/chat/completions";

test("unknown routes and methods are answered in OpenAI's shape", async () => {
  const { url } = await start();
  expect(await errorOf(await fetch(`${url}/v2/nothing`))).toMatchObject({ status: 404, code: "not_found" });
  const wrong = await fetch(url + C);
  expect(wrong.headers.get("allow")).toBe("POST");
  expect(await errorOf(wrong)).toMatchObject({ status: 405, code: "method_not_allowed" });
  expect(await errorOf(await post(`${url}/v1/models`, {}))).toMatchObject({ status: 405, code: "method_not_allowed" });
});

test("models describe the exits that are served", async () => {
  const { url } = await start();
  const list = ModelList.parse(await (await fetch(`${url}/v1/models`)).json());
  expect(list.data[0]).toMatchObject({ id: "tiny", fathom: { layers: 8, context_length: 256 } });
  const parameters = list.data[0]?.fathom?.exits.map((exit) => exit.parameters) ?? [];
  expect(list.data[0]?.fathom?.exits.map(({ depth }) => depth)).toEqual([2, 4, 6, 8]);
  expect(parameters).toEqual([...parameters].sort((a, b) => a - b));
  for (const id of ["tiny", "fathom"]) {
    expect(await (await fetch(`${url}/v1/models/${id}`)).json()).toEqual(list.data[0]);
  }
  expect(await errorOf(await fetch(`${url}/v1/models/gpt`))).toMatchObject({ status: 404, code: "model_not_found" });
});

test("everything but health needs a key", async () => {
  const { url } = await start({ secret: SECRET });
  for (const path of ["/healthz", "/readyz"]) expect((await fetch(url + path)).status).toBe(200);
  for (const path of ["/v1/models", "/v1/models/tiny", C, "/nothing"]) {
    const response = await fetch(url + path);
    expect(response.headers.get("www-authenticate")).toBe("Bearer");
    expect(await errorOf(response)).toMatchObject({ status: 401, code: "missing_api_key" });
  }
  const headers = { authorization: `Bearer ${SECRET}` };
  expect((await post(url + C, CHAT, { headers })).status).toBe(200);
});

test("a token of the edge bounds the depth, and its reason and price are believed", async () => {
  const { url } = await start({ secret: SECRET, script: "ab" });
  const facts = { [REASON_HEADER]: "load", [PRICE_HEADER]: "1000" };
  const headersOf = async (body: object) => ({ ...facts, ...(await edgeToken(SECRET, body, { max_depth: 4 })) });
  const eight = { ...CHAT, fathom: { depth: 8 } };
  const deep = await post(url + C, eight, { headers: await headersOf(eight) });
  expect(await errorOf(deep)).toMatchObject({ status: 403, code: "depth_not_allowed", param: "fathom.depth" });
  const body = ChatCompletion.parse(await (await post(url + C, CHAT, { headers: await headersOf(CHAT) })).json());
  expect(body.fathom).toMatchObject({ depth: 4, reason: "load" });
  expect(body.fathom.cost.micro_usd).toBe(body.fathom.cost.layer_tokens);
  const direct = { ...facts, authorization: `Bearer ${SECRET}` };
  const own = ChatCompletion.parse(await (await post(url + C, CHAT, { headers: direct })).json());
  expect(own.fathom).toMatchObject({ depth: 8, reason: "plan", cost: { micro_usd: 0 } });
});

test("without a key only requests that name this machine are answered", async () => {
  const { url } = await start();
  const { port } = new URL(url);
  const status = await new Promise((resolve, reject) => {
    const request = httpRequest({ port, path: "/v1/models", headers: { host: "rebound.example" } }, (response) => {
      response.resume();
      resolve(response.statusCode);
    });
    request.on("error", reject).end();
  });
  expect(status).toBe(403);
});

test("a request keeps its id, and gets one where it has none or an improper one", async () => {
  const { url } = await start();
  const given = await fetch(`${url}/v1/models`, { headers: { "x-request-id": "abc-123" } });
  expect(given.headers.get("x-request-id")).toBe("abc-123");
  const improper = await fetch(`${url}/nothing`, { headers: { "x-request-id": "a b<c>" } });
  expect(improper.headers.get("x-request-id")).toMatch(/^[0-9a-f-]{36}$/);
});

test("an overloaded engine is answered with 429 and a time to wait, streamed or not", async () => {
  const error = new ApiError("overloaded", "the service is at capacity", { retryAfter: 1 });
  const { url } = await start({ script: { tokens: [5], failure: { at: 0, error } } });
  for (const stream of [true, false]) {
    const response = await post(url + C, { ...CHAT, stream });
    expect(response.headers.get("retry-after")).toBe("1");
    expect(await errorOf(response)).toMatchObject({ status: 429, code: "overloaded" });
  }
});

test("what fails unexpectedly is told to the log, not to the client", async () => {
  const failure = { at: 0, error: new Error("password is hunter2") };
  const { url, log } = await start({ script: { tokens: [5], failure } });
  const error = await errorOf(await post(url + C, CHAT));
  expect(error).toMatchObject({ status: 500, code: "internal_error" });
  expect(error.message).not.toMatch(/hunter2/);
  expect(JSON.stringify(log)).toMatch(/hunter2/);
});

test("a failure in mid-stream is an event of its own, and [DONE] is missing", async () => {
  const tokens = TINY_TEXT.encode("abc");
  const { url, log } = await start({ script: { tokens, failure: { at: 2, error: new Error("secret detail") } } });
  const response = await post(url + C, { ...CHAT, stream: true });
  expect(response.status).toBe(200);
  const text = await response.text();
  const { events, done } = parseSse(text);
  expect(events.at(-1)).toMatchObject({ error: { code: "internal_error" } });
  expect(done).toBe(false);
  expect(text).not.toMatch(/secret detail/);
  expect(JSON.stringify(log)).toMatch(/secret detail/);
});

test("the log has one line per request, with figures and without the texts", async () => {
  const { url, log } = await start({ script: "confidential answer" });
  const messages = [{ role: "user", content: "confidential question" }];
  await (await post(url + C, { ...CHAT, messages, stream: true })).text();
  await (await post(url + C, { ...CHAT, messages })).text();
  await fetch(`${url}/healthz`);
  expect(log).toHaveLength(2);
  for (const line of log) {
    expect(line).toMatchObject({ method: "POST", path: C, status: 200, finishReason: "stop", depth: 8 });
    expect(line.requestId).toEqual(expect.any(String));
    expect(JSON.stringify(line)).not.toMatch(/confidential/);
  }
});
