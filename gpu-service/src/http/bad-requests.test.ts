import { once } from "node:events";
import { request as httpRequest } from "node:http";
import { connect } from "node:net";
import { ErrorBody } from "@fathom/shared";
import { expect, onTestFinished, test } from "vitest";
import { MAX_BODY_BYTES } from "./read-json.ts";
import { errorOf, post, scriptedService } from "./testing/scripted-service.ts";

const CHAT = { model: "tiny", messages: [{ role: "user", content: "Hi" }] };

async function start() {
  const started = await scriptedService();
  onTestFinished(() => started.close());
  return started;
}

const C = "/v1/chat/completions";
const P = "/v1/completions";
const long = "x".repeat(300);

test.each([
  ["malformed JSON", C, '{"model": ', 400, "invalid_json", null],
  ["an empty body", C, "", 400, "invalid_json", null],
  ["a list", C, [], 400, "invalid_request", null],
  ["no model", C, { messages: CHAT.messages }, 400, "invalid_request", "model"],
  ["an unknown model", C, { ...CHAT, model: "gpt" }, 404, "model_not_found", "model"],
  ["no messages", C, { model: "tiny" }, 400, "invalid_request", "messages"],
  ["empty messages", C, { ...CHAT, messages: [] }, 400, "invalid_request", "messages"],
  [
    "an unknown role",
    C,
    { ...CHAT, messages: [{ role: "king", content: "" }] },
    400,
    "invalid_request",
    "messages.0.role",
  ],
  [
    "a message of a wrong type",
    C,
    { ...CHAT, messages: [{ role: "user", content: 5 }] },
    400,
    "invalid_request",
    "messages.0.content",
  ],
  [
    "an image",
    C,
    { ...CHAT, messages: [{ role: "user", content: [{ type: "image_url" }] }] },
    400,
    "invalid_request",
    "messages.0.content",
  ],
  [
    "messages that the template refuses",
    C,
    { ...CHAT, messages: [{ role: "user", content: "refuse me" }] },
    400,
    "invalid_request",
    "messages",
  ],
  ["a negative temperature", C, { ...CHAT, temperature: -1 }, 400, "invalid_request", "temperature"],
  ["a temperature in words", C, { ...CHAT, temperature: "hot" }, 400, "invalid_request", "temperature"],
  ["top_p of zero", C, { ...CHAT, top_p: 0 }, 400, "invalid_request", "top_p"],
  ["no tokens", C, { ...CHAT, max_tokens: 0 }, 400, "invalid_request", "max_tokens"],
  ["half a token", C, { ...CHAT, max_tokens: 1.5 }, 400, "invalid_request", "max_tokens"],
  ["a huge limit", C, { ...CHAT, max_tokens: 1e300 }, 400, "invalid_request", "max_tokens"],
  ["a limit beyond the context", C, { ...CHAT, max_tokens: 250 }, 400, "context_length_exceeded", "max_tokens"],
  [
    "a newer limit beyond the context",
    C,
    { ...CHAT, max_completion_tokens: 250 },
    400,
    "context_length_exceeded",
    "max_completion_tokens",
  ],
  [
    "a chat beyond the context",
    C,
    { ...CHAT, messages: [{ role: "user", content: long }] },
    400,
    "context_length_exceeded",
    "messages",
  ],
  ["a text beyond the context", P, { model: "tiny", prompt: long }, 400, "context_length_exceeded", "prompt"],
  [
    "tokens that fill the context",
    P,
    { model: "tiny", prompt: Array(256).fill(5) },
    400,
    "context_length_exceeded",
    "prompt",
  ],
  ["an empty prompt", P, { model: "tiny", prompt: "" }, 400, "invalid_request", "prompt"],
  ["an empty list of tokens", P, { model: "tiny", prompt: [] }, 400, "invalid_request", "prompt"],
  ["a token outside the vocabulary", P, { model: "tiny", prompt: [5, 320] }, 400, "invalid_request", "prompt.1"],
  ["a negative token", P, { model: "tiny", prompt: [-1] }, 400, "invalid_request", "prompt.0"],
  ["an empty stop string", C, { ...CHAT, stop: "" }, 400, "invalid_request", "stop"],
  ["a stop string that is a number", C, { ...CHAT, stop: 5 }, 400, "invalid_request", "stop"],
  ["two choices", C, { ...CHAT, n: 2 }, 400, "invalid_request", "n"],
  ["a depth without an exit", C, { ...CHAT, fathom: { depth: 5 } }, 400, "invalid_depth", "fathom.depth"],
  ["a depth in words", C, { ...CHAT, fathom: { depth: "deep" } }, 400, "invalid_request", "fathom.depth"],
  ["a negative depth", C, { ...CHAT, fathom: { depth: -2 } }, 400, "invalid_request", "fathom.depth"],
  ["a misspelt dial", C, { ...CHAT, fathom: { dept: 4 } }, 400, "invalid_request", "fathom.dept"],
  ["an unknown exit policy", C, { ...CHAT, fathom: { exit: "entropy" } }, 400, "invalid_request", "fathom.exit"],
  [
    "calibrated thresholds that the checkpoint has not",
    C,
    { ...CHAT, fathom: { exit: "confidence" } },
    400,
    "unsupported_exit_policy",
    "fathom.threshold",
  ],
  [
    "a threshold without the policy that it belongs to",
    C,
    { ...CHAT, fathom: { threshold: 0.5 } },
    400,
    "invalid_request",
    "fathom.threshold",
  ],
  [
    "a draft at no exit",
    C,
    { ...CHAT, fathom: { exit: "speculative", min_depth: 3 } },
    400,
    "invalid_depth",
    "fathom.min_depth",
  ],
])("%s is refused, and nothing runs", async (_, path, body, status, code, param) => {
  const { url, engine } = await start();
  expect(await errorOf(await post(url + path, body))).toMatchObject({ status, code, param });
  expect(engine.requests).toHaveLength(0);
});

test("a prompt beyond the context is told the limit and its own length", async () => {
  const { url } = await start();
  const { message } = await errorOf(await post(url + P, { model: "tiny", prompt: Array(300).fill(5) }));
  expect(message).toMatch(/300/);
  expect(message).toMatch(/256/);
});

test.each([
  ["x-fathom-timeout-ms", "0"],
  ["x-fathom-timeout-ms", "-5"],
  ["x-fathom-timeout-ms", "1.5"],
  ["x-fathom-timeout-ms", "soon"],
  ["x-fathom-timeout-ms", "9999999999"],
  ["x-fathom-priority", "urgent"],
])("a header %s: %s is refused, and nothing runs", async (name, value) => {
  const { url, engine } = await start();
  const response = await post(url + C, CHAT, { headers: { [name]: value } });
  expect(await errorOf(response)).toMatchObject({ status: 400, code: "invalid_request", param: name });
  expect(engine.requests).toHaveLength(0);
});

test.each([["text/plain"], ["application/x-www-form-urlencoded"], ["application/jsonx"]])(
  "content type %s is refused",
  async (type) => {
    const { url } = await start();
    const response = await post(url + C, CHAT, { headers: { "content-type": type } });
    expect(await errorOf(response)).toMatchObject({ status: 400, code: "invalid_request", param: "content-type" });
  },
);

test("a body that announces its excess is refused", async () => {
  const { url, engine } = await start();
  const response = await post(url + C, { ...CHAT, user: "x".repeat(MAX_BODY_BYTES) });
  expect(await errorOf(response)).toMatchObject({ status: 413, code: "body_too_large" });
  expect(engine.requests).toHaveLength(0);
});

test("a body in chunks without an announced length is refused once it is too long", async () => {
  const { url } = await start();
  const answer = await new Promise<{ status: number | undefined; body: string }>((resolve, reject) => {
    const request = httpRequest(
      url + C,
      { method: "POST", headers: { "content-type": "application/json" } },
      (response) => {
        let body = "";
        response.setEncoding("utf8").on("data", (text) => {
          body += text;
        });
        response.on("end", () => resolve({ status: response.statusCode, body }));
      },
    );
    request.on("error", reject);
    for (let i = 0; i < 20; i++) request.write(" ".repeat(64 * 1024));
    request.end();
  });
  expect(answer.status).toBe(413);
  expect(ErrorBody.parse(JSON.parse(answer.body)).error.code).toBe("body_too_large");
});

test("a chunked body within the limit is read", async () => {
  const { url } = await start();
  const stream = new Blob([JSON.stringify(CHAT)]).stream();
  const response = await post(url + C, "", { body: stream, duplex: "half" });
  expect(response.status).toBe(200);
});

test.each([
  ["a Host header that is none", "GET /v1/models HTTP/1.1\r\nHost: a b\r\n\r\n"],
  ["a target that is none", "GET http://[ HTTP/1.1\r\nHost: localhost\r\n\r\n"],
  ["no Host header", "GET /v1/models HTTP/1.0\r\n\r\n"],
  ["what is not HTTP", "Good morning!\r\n\r\n"],
])("%s is answered with 400 or as usual, and the service goes on", async (_, text) => {
  const { url } = await start();
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  let answer = "";
  socket.setEncoding("utf8").on("data", (chunk: string) => {
    answer += chunk;
    socket.end();
  });
  socket.write(text);
  await once(socket, "close");
  expect(answer).toMatch(/^HTTP\/1\.1 (400|200) /);
  expect((await fetch(`${url}/healthz`)).status).toBe(200);
});

test.each([
  ["of an announced length", "Content-Length: 1000\r\n\r\n{"],
  ["in chunks", "Transfer-Encoding: chunked\r\n\r\n1\r\n{\r\n"],
])("a client that goes away within a body %s is no failure of the service", async (_, rest) => {
  const { url, log } = await start();
  const socket = connect(Number(new URL(url).port), "127.0.0.1");
  socket.write(
    `POST ${C} HTTP/1.1\r\nHost: localhost\r\nContent-Type: application/json\r\nExpect: 100-continue\r\n${rest}`,
  );
  // The server's "100 Continue": the request has reached it, and its body is being waited for.
  await once(socket, "data");
  socket.destroy();
  await expect.poll(() => log).toEqual([expect.objectContaining({ error: "cancelled", status: 499 })]);
});
