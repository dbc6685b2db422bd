import { setTimeout as sleep } from "node:timers/promises";
import { expect, onTestFinished, test } from "vitest";
import { z } from "zod";
import { parseSse, post, type ScriptedServiceOptions, scriptedService, TINY_TEXT } from "./testing/scripted-service.ts";

const CHAT = { model: "tiny", messages: [{ role: "user", content: "Hi" }] };
const PATH = "/v1/chat/completions";

async function start(options: ScriptedServiceOptions) {
  const started = await scriptedService(options);
  onTestFinished(() => started.close());
  return started;
}

/** Opens once for all: tokens from `from` on wait for it. */
function gate(from: number): { before: (index: number) => Promise<void>; open: () => void } {
  const opened = Promise.withResolvers<void>();
  return {
    before: (index) => (index < from ? Promise.resolve() : opened.promise),
    open: opened.resolve,
  };
}

/** Polls for a state that a message between two ends of a connection brings about. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await sleep(5);
}

async function readUntil(reader: ReadableStreamDefaultReader<Uint8Array>, marker: string): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  while (!text.includes(marker)) {
    const { done, value } = await reader.read();
    if (done) break;
    text += decoder.decode(value, { stream: true });
  }
  return text;
}

function readerOf(response: Response): ReadableStreamDefaultReader<Uint8Array> {
  if (!response.body) throw new Error("the response has no body");
  return response.body.getReader();
}

test("each token is sent when it is there, not when the answer is complete", async () => {
  const { before, open } = gate(2);
  const { url } = await start({ script: { tokens: TINY_TEXT.encode("xyz"), before } });
  const response = await post(url + PATH, { ...CHAT, stream: true });
  const reader = readerOf(response);
  expect(await readUntil(reader, '"y"')).not.toContain('"z"');
  open();
  expect(await readUntil(reader, "[DONE]")).toContain('"z"');
});

test("a client that does not read does not hold the engine's row", async () => {
  const tokens = Array.from({ length: 200 }, () => TINY_TEXT.encode("x")[0] ?? 0);
  const { url, engine, service } = await start({ script: { tokens } });
  const response = await post(url + PATH, { ...CHAT, stream: true });
  await until(() => service.load().running === 0);
  expect(engine.cancelled).toBe(0);
  const { events } = parseSse(await response.text());
  expect(z.object({ fathom: z.object({ depth: z.literal(8) }) }).safeParse(events.at(-1)).success).toBe(true);
});

test.each([true, false])("a client that goes away cancels its request (stream: %s)", async (stream) => {
  const { before } = gate(1);
  const { url, engine, service, log } = await start({ script: { tokens: TINY_TEXT.encode("xyz"), before } });
  const abort = new AbortController();
  const pending = post(url + PATH, { ...CHAT, stream }, { signal: abort.signal }).then((r) => r.text());
  await until(() => engine.requests.length === 1);
  // The server must have begun: a stream is open once its first token is sent.
  await until(() => service.load().running === 1);
  abort.abort();
  await expect(pending).rejects.toThrow();
  await until(() => engine.cancelled === 1);
  expect(service.load().running).toBe(0);
  await until(() => log.length === 1);
  expect(log[0]).toMatchObject({ error: "cancelled" });
});

test("while the model loads, health is fine, readiness is not, and requests are to come again", async () => {
  const { url } = await start({ loading: true });
  expect(await (await fetch(`${url}/healthz`)).json()).toEqual({ status: "ok", load: { running: 0, waiting: 0 } });
  const ready = await fetch(`${url}/readyz`);
  expect([ready.status, await ready.json()]).toEqual([503, { status: "loading" }]);
  for (const response of [await post(url + PATH, CHAT), await fetch(`${url}/v1/models`)]) {
    expect(response.status).toBe(503);
    expect(Number(response.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(await response.json()).toMatchObject({ error: { code: "upstream_unavailable" } });
  }
});

test("draining refuses what is new and finishes what runs", async () => {
  const { before, open } = gate(1);
  const { url, service } = await start({ script: { tokens: TINY_TEXT.encode("xyz"), before } });
  const running = await post(url + PATH, { ...CHAT, stream: true });
  const drained = service.drain(60_000);
  const refused = await post(url + PATH, CHAT);
  expect(refused.status).toBe(503);
  expect(Number(refused.headers.get("retry-after"))).toBeGreaterThan(0);
  expect(refused.headers.get("connection")).toBe("close");
  expect(await refused.json()).toMatchObject({ error: { code: "draining" } });
  expect((await fetch(`${url}/readyz`)).status).toBe(503);
  expect(await (await fetch(`${url}/healthz`)).json()).toEqual({ status: "ok", load: { running: 1, waiting: 0 } });
  open();
  expect(parseSse(await running.text()).done).toBe(true);
  expect(await drained).toBe(0);
});

test("an answer that outlasts the drain is cut with an error that says so", async () => {
  const { before } = gate(1);
  const { url, service, engine } = await start({ script: { tokens: TINY_TEXT.encode("xyz"), before } });
  const streamed = await post(url + PATH, { ...CHAT, stream: true });
  const whole = post(url + PATH, CHAT);
  await until(() => engine.requests.length === 2);
  expect(await service.drain(10)).toBe(2);
  const { events, done } = parseSse(await streamed.text());
  expect(events.at(-1)).toMatchObject({ error: { code: "draining" } });
  expect(done).toBe(false);
  expect((await whole).status).toBe(503);
  expect(engine.cancelled).toBe(2);
});

test("draining an idle service takes no time", async () => {
  const { service } = await start({});
  expect(await service.drain(60_000)).toBe(0);
});
