import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ApiError } from "@fathom/shared";
import { afterAll, beforeAll, expect, test } from "vitest";
import { importCheckpoint } from "../checkpoint/import-checkpoint.ts";
import { loadEngine } from "./load-engine.ts";
import type { Engine, EngineEvent, EngineRequest } from "./types.ts";

const source = new URL("../../../test/fixtures/tiny-llama/tied", import.meta.url).pathname;
let dir: string;
let checkpoint: string;
let engine: Engine;

beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fathom-engine-"));
  checkpoint = join(dir, "checkpoint");
  await importCheckpoint(source, checkpoint, { exits: [2, 4, 6, 8], weights: "fp32" });
  engine = await loadEngine(checkpoint, { threads: 1, maxConcurrent: 2, maxWaiting: 1 });
});

afterAll(async () => {
  await engine.close();
  await rm(dir, { recursive: true });
});

let ids = 0;
function request(overrides: Partial<EngineRequest> = {}): EngineRequest {
  return {
    id: `request-${ids++}`,
    prompt: [5, 9, 12],
    depth: 8,
    sampling: { temperature: 0, topP: 1, seed: 0 },
    maxTokens: 8,
    stopTokenIds: [],
    ...overrides,
  };
}

async function collect(events: AsyncIterable<EngineEvent>): Promise<EngineEvent[]> {
  const all: EngineEvent[] = [];
  for await (const event of events) all.push(event);
  return all;
}

function refusal(overrides: Partial<EngineRequest>): ApiError {
  try {
    engine.generate(request(overrides));
  } catch (error) {
    if (error instanceof ApiError) return error;
  }
  throw new Error("the request was not refused");
}

async function tokensOf(overrides: Partial<EngineRequest>): Promise<number[]> {
  const events = await collect(engine.generate(request(overrides)));
  return events.flatMap((event) => (event.type === "token" ? [event.token] : []));
}

test("an answer ends once, with its timing in order", async () => {
  const events = await collect(engine.generate(request()));
  const last = events.at(-1);
  expect(events.filter((event) => event.type === "finished")).toHaveLength(1);
  if (last?.type !== "finished") throw new Error("no terminal event");
  expect(last.reason).toBe("length");
  const { queueMs, prefillMs, timeToFirstTokenMs, decodeMs, totalMs } = last.timing;
  expect(Math.min(queueMs, prefillMs, decodeMs)).toBeGreaterThanOrEqual(0);
  expect(timeToFirstTokenMs).toBeGreaterThanOrEqual(queueMs + prefillMs - 1);
  expect(totalMs).toBeGreaterThanOrEqual(timeToFirstTokenMs + decodeMs - 1);
});

test("a stop token ends the answer and is not part of it", async () => {
  const plain = await tokensOf({});
  const stop = plain[3] as number;
  const events = await collect(engine.generate(request({ stopTokenIds: [stop] })));
  expect(events.at(-1)).toMatchObject({ type: "finished", reason: "stop" });
  expect(events.flatMap((event) => (event.type === "token" ? [event.token] : []))).toEqual(
    plain.slice(0, plain.indexOf(stop)),
  );
});

test("a seed makes a sampled answer repeatable; another seed gives another", async () => {
  const sampled = (seed: number) => tokensOf({ sampling: { temperature: 1.5, topP: 0.95, seed }, maxTokens: 20 });
  const first = await sampled(11);
  expect(await sampled(11)).toEqual(first);
  expect(await sampled(12)).not.toEqual(first);
});

test("a long prompt, prefilled in chunks, answers as one prefilled token by token", async () => {
  const prompt = Array.from({ length: 200 }, (_, i) => (i * 37 + 11) % 320);
  const next = (await tokensOf({ prompt, maxTokens: 1 }))[0];
  const exits = await engine.probe(prompt, [8]);
  const logits = [...(exits[0]?.logits ?? [])];
  expect(next).toBe(logits.indexOf(Math.max(...logits)));
});

test("refuses what cannot run, by name", () => {
  expect(refusal({ depth: 3 })).toMatchObject({ code: "invalid_depth", param: "fathom.depth" });
  expect(refusal({ depth: 3 }).message).toContain("2, 4, 6, 8");
  expect(refusal({ prompt: [] }).code).toBe("invalid_request");
  expect(refusal({ prompt: [1, 320] }).message).toContain("320");
  expect(refusal({ prompt: [1, -1] }).message).toContain("-1");
  expect(refusal({ prompt: new Array(256).fill(1) })).toMatchObject({
    code: "context_length_exceeded",
    param: "prompt",
  });
  expect(refusal({ maxTokens: 254 })).toMatchObject({ code: "context_length_exceeded", param: "max_tokens" });
});

test("takes no request whose K/V alone exceeds the memory for it", async () => {
  // One position takes 8 layers × (K and V) × 3 heads × 16 values × 4 bytes: 128 positions fit.
  const small = await loadEngine(checkpoint, { threads: 1, kvMemory: 150 * 3072 });
  expect(small.info.contextLength).toBe(128);
  expect(() => small.generate(request({ prompt: new Array(100).fill(1), maxTokens: 29 }))).toThrow(
    "the context holds 128 tokens; the prompt has 100 and 29 were asked for",
  );
  await collect(small.generate(request({ prompt: new Array(100).fill(1), maxTokens: 28 })));
  await expect.poll(() => small.stats().generatedTokens).toBe(28);
  expect(small.stats().kvBytes).toBeLessThanOrEqual(small.stats().kvBudgetBytes);
  await small.close();
  await expect(loadEngine(checkpoint, { threads: 1, kvMemory: 60 * 3072 })).rejects.toThrow(
    "0.18 MiB of K/V memory hold no request: at depth 8 one takes 0.19 MiB",
  );
});

test("fills the context to its last position", async () => {
  expect(await tokensOf({ maxTokens: 253 })).toHaveLength(253);
});

test("refuses what exceeds the queue, and serves again once there is room", async () => {
  const streams = [0, 1, 2].map(() => collect(engine.generate(request({ maxTokens: 30 }))));
  expect(engine.load()).toEqual({ running: 2, waiting: 1 });
  expect(refusal({})).toMatchObject({ code: "overloaded", retryAfter: 1 });
  await Promise.all(streams);
  expect(engine.load()).toEqual({ running: 0, waiting: 0 });
  expect(await tokensOf({})).toHaveLength(8);
});

test("an aborted request ends as cancelled and frees its row; the others go on", async () => {
  const controller = new AbortController();
  const other = tokensOf({ maxTokens: 40 });
  const seen: EngineEvent[] = [];
  for await (const event of engine.generate(request({ maxTokens: 200 }), controller.signal)) {
    seen.push(event);
    if (seen.length === 3) controller.abort();
  }
  expect(seen.at(-1)).toMatchObject({ type: "finished", reason: "cancelled" });
  expect(seen.length).toBeLessThan(100);
  expect(await other).toHaveLength(40);
  expect(engine.load().running).toBe(0);
});

test("leaving the loop early frees the row", async () => {
  for await (const event of engine.generate(request({ maxTokens: 200 }))) if (event.type === "token") break;
  await expect.poll(() => engine.load().running).toBe(0);
});

test("serves a subset of the exits and refuses exits that the checkpoint lacks", async () => {
  const shallow = await loadEngine(checkpoint, { threads: 1, exits: [4] });
  expect(shallow.info.exits).toEqual([4]);
  // Other segment borders fuse other operators, so the last bits may differ.
  const [deep, alone] = await Promise.all([engine.probe([5, 9], [4]), shallow.probe([5, 9], [4])]);
  const gaps = [...(deep[0]?.logits ?? [])].map((x, i) => Math.abs(x - (alone[0]?.logits[i] ?? Number.NaN)));
  expect(gaps).toHaveLength(320);
  expect(Math.max(...gaps)).toBeLessThan(2e-4);
  await shallow.close();
  await expect(loadEngine(checkpoint, { exits: [5] })).rejects.toThrow("no exit at depth 5; exits are 2, 4, 6, 8");
});

test("closing cancels what runs and refuses what comes", async () => {
  const closing = await loadEngine(checkpoint, { threads: 1 });
  const events = collect(closing.generate(request({ maxTokens: 200 })));
  await closing.close();
  expect((await events).at(-1)).toMatchObject({ type: "finished", reason: "cancelled" });
  expect(() => closing.generate(request())).toThrow(ApiError);
});
