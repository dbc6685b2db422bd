import { TIMEOUT_HEADER } from "@fathom/shared";
import { expect, onTestFinished, test } from "vitest";
import {
  errorOf,
  parseSse,
  post,
  type ScriptedServiceOptions,
  scriptedService,
  TINY_TEXT,
} from "./testing/scripted-service.ts";

const CHAT = { model: "tiny", messages: [{ role: "user", content: "Hi" }] };
const PATH = "/v1/chat/completions";

async function start(options: ScriptedServiceOptions = {}) {
  const started = await scriptedService(options);
  onTestFinished(() => started.close());
  return started;
}

/** An engine that stops for ever before a token. */
const stuckAt = (at: number) => ({
  tokens: TINY_TEXT.encode("abc"),
  before: (index: number): Promise<void> => (index < at ? Promise.resolve() : new Promise(() => {})),
});

test.each([
  [undefined, 60_000],
  ["5000", 5000],
  ["60001", 60_000],
  ["999999999", 60_000],
])("a caller that says %s gets %d ms of the 60 s that there are", async (header, expected) => {
  const { url, engine } = await start({ requestTimeoutMs: 60_000 });
  await post(url + PATH, CHAT, { headers: header === undefined ? {} : { [TIMEOUT_HEADER]: header } });
  expect(engine.requests[0]?.timeoutMs).toBe(expected);
});

test("a whole answer that is not complete in time is a 504, however much of it was there", async () => {
  const { url, service } = await start({ script: stuckAt(2), requestTimeoutMs: 50 });
  const response = await post(url + PATH, CHAT);
  const error = await errorOf(response);
  expect(error).toMatchObject({ status: 504, code: "timeout" });
  expect(error.message).toContain("50 ms");
  expect(service.load().running).toBe(0);
});

test("a stream that has not begun in time is a 504, too", async () => {
  const { url } = await start({ script: stuckAt(0), requestTimeoutMs: 50 });
  expect(await errorOf(await post(url + PATH, { ...CHAT, stream: true }))).toMatchObject({ status: 504 });
});

test("a stream that is cut in time keeps what it has, says why it ends, and has no [DONE]", async () => {
  const { url } = await start({ script: stuckAt(2) });
  const headers = { [TIMEOUT_HEADER]: "50" };
  const response = await post(url + PATH, { ...CHAT, stream: true }, { headers });
  expect(response.status).toBe(200);
  const text = await response.text();
  const { events, done } = parseSse(text);
  expect(text).toContain('"b"');
  expect(events.at(-1)).toMatchObject({ error: { code: "timeout" } });
  expect(events.some((event) => JSON.stringify(event).includes('"finish_reason":"length"'))).toBe(false);
  expect(done).toBe(false);
});
