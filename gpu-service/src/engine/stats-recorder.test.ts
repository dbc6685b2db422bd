import { expect, test } from "vitest";
import { StatsRecorder } from "./stats-recorder.ts";

const GAUGES = {
  running: 3,
  waiting: 2,
  paused: 1,
  kvBytes: 4096,
  kvBudgetBytes: 8192,
  prefixCacheBytes: 1024,
  pendingRows: 7,
};

test("a new recorder has counted nothing and passes the gauges on", () => {
  expect(new StatsRecorder().snapshot(GAUGES)).toEqual({
    ...GAUGES,
    steps: 0,
    promptTokens: 0,
    generatedTokens: 0,
    prefixCacheQueries: 0,
    prefixCacheHits: 0,
    preemptions: 0,
    exits: [],
    draftProposed: 0,
    draftAccepted: 0,
  });
});

test("tokens are counted by depth and reason, and in all", () => {
  const recorder = new StatsRecorder();
  recorder.token(4, "confident");
  recorder.token(8, "target");
  recorder.token(4, "confident");
  recorder.token(4, "fixed");
  const { exits, generatedTokens } = recorder.snapshot(GAUGES);
  expect(generatedTokens).toBe(4);
  expect(exits).toEqual([
    { depth: 4, reason: "confident", tokens: 2 },
    { depth: 8, reason: "target", tokens: 1 },
    { depth: 4, reason: "fixed", tokens: 1 },
  ]);
});

test("the other counters come through under their names", () => {
  const recorder = new StatsRecorder();
  const counters = {
    steps: 1,
    promptTokens: 2,
    prefixCacheQueries: 3,
    prefixCacheHits: 4,
    preemptions: 5,
    draftProposed: 6,
    draftAccepted: 7,
  };
  Object.assign(recorder, counters);
  expect(recorder.snapshot(GAUGES)).toMatchObject(counters);
});

test("a snapshot does not change with what is counted afterwards", () => {
  const recorder = new StatsRecorder();
  recorder.token(4, "fixed");
  const before = recorder.snapshot(GAUGES);
  recorder.token(4, "fixed");
  recorder.steps++;
  expect([before.generatedTokens, before.exits[0]?.tokens, before.steps]).toEqual([1, 1, 0]);
});
