import { setImmediate as turn } from "node:timers/promises";
import { expect, test } from "vitest";
import { type SseOptions, sseStream } from "./sse.ts";

const EVENT = new Uint8Array(100);

/** Events that come as fast as they are taken, and how many were. */
function source(count: number): { taken: () => number; ended: Promise<void>; events: AsyncGenerator<Uint8Array> } {
  let taken = 0;
  const ended = Promise.withResolvers<void>();
  async function* events(): AsyncGenerator<Uint8Array, void, void> {
    try {
      for (; taken < count; taken++) {
        await turn();
        yield EVENT;
      }
    } finally {
      ended.resolve();
    }
  }
  return { taken: () => taken, ended: ended.promise, events: events() };
}

function open(events: AsyncIterable<Uint8Array>, more: Partial<SseOptions> = {}) {
  const left: unknown[] = [];
  const abort = new AbortController();
  const onDisconnect = (reason?: unknown): void => {
    left.push(reason);
    abort.abort();
  };
  const stream = sseStream(events, { signal: abort.signal, onDisconnect, bufferBytes: 1000, stallMs: 60_000, ...more });
  return { stream, left, abort };
}

async function settle(): Promise<void> {
  for (let i = 0; i < 100; i++) await turn();
}

test("a client that reads gets everything", async () => {
  const { stream, left } = open(source(500).events);
  expect((await new Response(stream).bytes()).length).toBe(500 * EVENT.length);
  expect(left).toEqual([]);
});

test("a client that does not read holds its events up at the bound, and goes on where it stopped", async () => {
  const { events, taken } = source(200);
  const { stream, left } = open(events);
  await settle();
  expect(taken()).toBeLessThanOrEqual(11);
  expect((await new Response(stream).bytes()).length).toBe(200 * EVENT.length);
  expect(left).toEqual([]);
});

test("a client that reads nothing for too long is dropped, and the events come to their end", async () => {
  const { events, ended } = source(50);
  const { stream, left } = open(events, { stallMs: 20 });
  await ended;
  expect(left).toMatchObject([{ code: "cancelled" }]);
  await expect(new Response(stream).bytes()).rejects.toThrow("did not read");
});

test("a client that goes away is noticed, also while its events are held up", async () => {
  const { events, ended } = source(50);
  const { stream, left } = open(events);
  await settle();
  await stream.cancel();
  await ended;
  expect(left).toEqual([undefined]);
});

test("an answer that is being ended is not held up", async () => {
  const { events, ended, taken } = source(50);
  const { stream, abort } = open(events);
  await settle();
  expect(taken()).toBeLessThan(50);
  abort.abort();
  await ended;
  expect((await new Response(stream).bytes()).length).toBe(50 * EVENT.length);
});
