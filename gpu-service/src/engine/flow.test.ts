import { join } from "node:path";
import { ApiError } from "@fathom/shared";
import { afterAll, beforeAll, expect, test } from "vitest";
import { temporaryFolder } from "../checkpoint/testing/temporary-folder.ts";
import { loadEngine } from "./load-engine.ts";
import { collect } from "./testing/collect.ts";
import { importTinyLlama, tinyReference } from "./testing/tiny-llama.ts";
import type { Engine, EngineRequest } from "./types.ts";

const { exits, prompts } = tinyReference("tied");
const depth = exits.at(-1) ?? 0;
const dir = join(temporaryFolder(), "tiny");
let engine: Engine;
let serial = 0;

beforeAll(async () => {
  await importTinyLlama("tied", dir);
  engine = await loadEngine(dir, { threads: 1, maxConcurrent: 4, maxWaiting: 3, stallMs: 400 });
});
afterAll(() => engine.close());

const request = (changes: Partial<EngineRequest> = {}): EngineRequest => ({
  id: `f${serial++}`,
  prompt: prompts[0] ?? [],
  depth,
  sampling: { temperature: 0, topP: 1, seed: 0 },
  maxTokens: 200,
  stopTokenIds: [],
  ...changes,
});

/** Waits until the engine's figures say so. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 10));
}

test("a reader that stands still pauses its own request, others go on, and it is dropped in the end", async () => {
  const slow = engine.generate(request())[Symbol.asyncIterator]();
  await slow.next();
  await until(() => engine.stats().paused === 1);
  expect((await collect(engine, request())).tokens).toHaveLength(200);
  await until(() => engine.load().running === 0);
  const rest = async () => {
    for (;;) if ((await slow.next()).done) return;
  };
  await expect(rest()).rejects.toThrow(expect.objectContaining({ code: "cancelled" }));
});

test("a reader that catches up gets the whole answer", async () => {
  const tokens: number[] = [];
  let waited = false;
  for await (const event of engine.generate(request())) {
    if (event.type === "finished") continue;
    tokens.push(event.token);
    if (waited) continue;
    waited = true;
    await until(() => engine.stats().paused === 1);
  }
  expect(tokens).toEqual((await collect(engine, request())).tokens);
});

test("a request whose time is up ends with what it has, also while it waits", async () => {
  const blockers = Array.from({ length: 4 }, () => collect(engine, request()));
  const late = await collect(engine, request({ timeoutMs: 1 }));
  expect(late).toMatchObject({ reason: "timeout", tokens: [] });
  const running = await collect(engine, request({ timeoutMs: 60_000 }));
  expect(running.reason).toBe("length");
  await Promise.all(blockers);
});

test("a full queue refuses with the time to wait", async () => {
  const live = Array.from({ length: 7 }, () => collect(engine, request({ maxTokens: 40 })));
  expect(() => engine.generate(request())).toThrow(ApiError);
  expect(() => engine.generate(request())).toThrow(expect.objectContaining({ code: "overloaded", retryAfter: 1 }));
  await Promise.all(live);
  expect((await collect(engine, request({ maxTokens: 2 }))).tokens).toHaveLength(2);
});

test("interactive requests overtake batch ones, which end all the same", async () => {
  const order: string[] = [];
  const interactive = async () => {
    await collect(engine, request({ maxTokens: 5 }));
    order.push("interactive");
  };
  const started = Array.from({ length: 4 }, () => Promise.withResolvers<void>());
  const batch = started.map(async ({ resolve }) => {
    for await (const event of engine.generate(request({ priority: { class: "batch", weight: 1 } }))) {
      if (event.type === "token") resolve();
    }
    order.push("batch");
  });
  await Promise.all(started.map(({ promise }) => promise));
  await Promise.all([...Array.from({ length: 3 }, interactive), ...batch]);
  expect(order.slice(0, 3)).toEqual(["interactive", "interactive", "interactive"]);
  await until(() => engine.stats().preemptions > 0);
});

test("a prompt that was run before is not run again", async () => {
  const prompt = Array.from({ length: 100 }, (_, i) => 5 + ((i * 11) % 300));
  const first = await collect(engine, request({ prompt, maxTokens: 3 }));
  const again = await collect(engine, request({ prompt, maxTokens: 3 }));
  const shallower = await collect(engine, request({ prompt, maxTokens: 3, depth: exits[0] ?? 1 }));
  expect(first.account?.cachedTokens).toBe(0);
  expect(again.account?.cachedTokens).toBe(96);
  expect(shallower.account?.cachedTokens).toBe(96);
  expect(again.tokens).toEqual(first.tokens);
  const salted = request({ prompt, maxTokens: 3, cacheSalt: "acme" });
  expect((await collect(engine, salted)).account?.cachedTokens).toBe(0);
  expect((await collect(engine, { ...salted, id: "again" })).account?.cachedTokens).toBe(96);
});
