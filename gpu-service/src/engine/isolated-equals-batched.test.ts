import { join } from "node:path";
import fc from "fast-check";
import { afterAll, beforeAll, expect, test } from "vitest";
import { temporaryFolder } from "../checkpoint/testing/temporary-folder.ts";
import { type LoadEngineOptions, loadEngine } from "./load-engine.ts";
import { type Answer, collect } from "./testing/collect.ts";
import { importTinyLlama, tinyReference } from "./testing/tiny-llama.ts";
import type { Engine, EnginePriority, EngineRequest, ExitPolicy } from "./types.ts";

const dir = join(temporaryFolder(), "tiny");
const { exits } = tinyReference("tied");
const [shallowest = 0, second = 0] = exits;
const full = exits.at(-1) ?? 0;
let alone: Engine;
let crowded: Engine;
/** Probabilities that a random model reaches now and then. */
let thresholds: number[];

/** Room for a few of the sequences below, so that many schedules preempt. */
const SMALL_MEMORY = 700_000;

beforeAll(async () => {
  await importTinyLlama("tied", dir);
  const open = (options: LoadEngineOptions) => loadEngine(dir, { threads: 1, ...options });
  alone = await open({});
  crowded = await open({ kvMemory: SMALL_MEMORY, maxConcurrent: 5, maxWaiting: 1000 });
  const scores = await alone.score(
    Array.from({ length: 100 }, (_, i) => (i * 37) % 320),
    0,
  );
  const confidences = [...(scores[0]?.confidence ?? [])].sort((x, y) => x - y);
  thresholds = [0.3, 0.6, 0.9].map((share) => confidences[Math.floor(share * confidences.length)] ?? 1);
});

afterAll(() => Promise.all([alone.close(), crowded.close()]));

const token = fc.integer({ min: 3, max: 319 });
const policy: fc.Arbitrary<ExitPolicy> = fc.oneof(
  fc.constant<ExitPolicy>({ type: "fixed" }),
  fc.array(fc.integer({ min: 0, max: 2 }), { minLength: 3, maxLength: 3 }).map(
    (picks): ExitPolicy => ({
      type: "confidence",
      get thresholds() {
        return Object.fromEntries(exits.slice(0, -1).map((depth, i) => [depth, thresholds[picks[i] ?? 0] ?? 1]));
      },
    }),
  ),
  fc
    .tuple(fc.constantFrom(shallowest, second), fc.constantFrom({}, { draftLength: 1 }, { draftLength: 5 }))
    .map(([draftDepth, length]): ExitPolicy => ({ type: "speculative", draftDepth, ...length })),
);
const priority: fc.Arbitrary<EnginePriority> = fc.record({
  class: fc.constantFrom("interactive", "batch"),
  weight: fc.integer({ min: 1, max: 4 }),
});
const job = fc.record({
  // Many prompts begin alike, so that they share K/V.
  prompt: fc
    .tuple(fc.boolean(), fc.array(token, { minLength: 1, maxLength: 90 }))
    .map(([common, tail]) => [...(common ? Array.from({ length: 64 }, (_, i) => 3 + ((i * 7) % 300)) : []), ...tail]),
  depth: fc.constantFrom(...exits),
  policy,
  priority,
  maxTokens: fc.integer({ min: 1, max: 24 }),
  /** Events of other answers before this one comes. */
  delay: fc.integer({ min: 0, max: 6 }),
  /** Tokens after which the reader leaves. */
  leaveAfter: fc.oneof({ weight: 4, arbitrary: fc.constant(Infinity) }, fc.integer({ min: 1, max: 12 })),
});

test("a request's tokens and layers are the same alone and in any mix of depths, policies, arrivals, departures and preemptions", async () => {
  let serial = 0;
  await fc.assert(
    fc.asyncProperty(fc.array(job, { minLength: 2, maxLength: 9 }), async (jobs) => {
      const requests = jobs.map(({ prompt, depth, policy: wanted, priority: rank, maxTokens }): EngineRequest => {
        const shallow = wanted.type === "speculative" && wanted.draftDepth >= depth;
        return {
          id: `r${serial++}`,
          prompt,
          depth,
          policy: shallow ? { type: "fixed" } : wanted.type === "confidence" ? { ...wanted } : wanted,
          priority: rank,
          sampling: { temperature: 0, topP: 1, seed: 0 },
          maxTokens,
          stopTokenIds: [7],
        };
      });
      const expected: Answer[] = [];
      for (const request of requests) expected.push(await collect(alone, { ...request, id: `alone-${request.id}` }));
      const actual = await Promise.all(
        requests.map(async (request, i) => {
          for (let turns = 0; turns < (jobs[i]?.delay ?? 0); turns++)
            await new Promise((resolve) => setTimeout(resolve, 1));
          return collect(crowded, request, jobs[i]?.leaveAfter);
        }),
      );
      for (const [i, answer] of actual.entries()) {
        const whole = expected[i];
        const count = Math.min(whole?.tokens.length ?? 0, jobs[i]?.leaveAfter ?? 0);
        expect(answer.tokens).toEqual(whole?.tokens.slice(0, count));
        expect(answer.layers).toEqual(whole?.layers.slice(0, count));
        if (answer.reason !== undefined) expect(answer.reason).toBe(whole?.reason);
      }
    }),
    { numRuns: 60 },
  );
  const stats = crowded.stats();
  // Else the property would not have met what it is about.
  expect(stats.preemptions).toBeGreaterThan(0);
  expect(stats.prefixCacheHits).toBeGreaterThan(0);
  expect(stats.draftAccepted).toBeLessThan(stats.draftProposed);
  expect(new Set(stats.exits.map(({ reason }) => reason))).toEqual(
    new Set(["fixed", "confident", "target", "verified"]),
  );
  expect(stats.exits.some(({ depth, reason }) => reason === "confident" && depth < full)).toBe(true);
});

test("nothing is left behind when all is done", async () => {
  await new Promise((resolve) => setTimeout(resolve, 300));
  const { running, waiting, paused, pendingRows, kvBytes, prefixCacheBytes, kvBudgetBytes } = crowded.stats();
  expect({ running, waiting, paused, pendingRows }).toEqual({ running: 0, waiting: 0, paused: 0, pendingRows: 0 });
  expect(kvBytes).toBe(prefixCacheBytes);
  expect(kvBytes).toBeLessThanOrEqual(kvBudgetBytes);
});
