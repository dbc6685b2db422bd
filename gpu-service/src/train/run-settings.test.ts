import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { hashFile } from "../checkpoint/hash-file.ts";
import { openCheckpoint } from "../checkpoint/open-checkpoint.ts";
import { temporaryFolder } from "../checkpoint/testing/temporary-folder.ts";
import { parseConfig, type TrainConfig } from "./config.ts";
import { loadParameters, type Parameters } from "./parameters.ts";
import { startRun } from "./run.ts";
import { importTiny } from "./testing/tiny-model.ts";

const root = temporaryFolder();
const base = join(root, "base");
const data = join(root, "data.jsonl");
const never = new AbortController().signal;
/** 62 records: 2 are held out, 60 train. */
const RECORDS = 62;
let exits: number[];
let before: Parameters;

beforeAll(async () => {
  ({ exits } = await importTiny("untied", base));
  before = await loadParameters(await openCheckpoint(base));
  const record = (i: number) => ({ prompt_tokens: [3 + i, 5], completion_tokens: [7, 9 + i, 2] });
  await writeFile(data, Array.from({ length: RECORDS }, (_, i) => JSON.stringify(record(i))).join("\n"));
});

let runs = 0;
async function run(changes: Partial<TrainConfig>) {
  const out = join(root, `run-${runs++}`);
  const config = parseConfig({ base, data, method: "soft", batch: 6, evalEvery: 1000, ...changes }, "test");
  const result = await startRun(out, config, never);
  const lines = (await readFile(join(out, "metrics.jsonl"), "utf8")).trim().split("\n");
  const metrics = lines.map((line) => JSON.parse(line));
  const trained = await loadParameters(await openCheckpoint(join(out, "checkpoint")));
  return { out, result, steps: metrics.filter(({ type }) => type === "step"), metrics, trained };
}

/** The matrix's values now, over those of the base. */
function ratio(trained: Parameters): number {
  const [now, then] = [trained.get("layers.1.mlp.down"), before.get("layers.1.mlp.down")];
  const dot = (x?: Float32Array, y?: Float32Array) => x?.reduce((sum, value, i) => sum + value * (y?.[i] ?? 0), 0) ?? 0;
  return dot(now, then) / dot(then, then);
}

test("epochs and accumulation decide the number of steps", async () => {
  expect((await run({ epochs: 1 })).result).toMatchObject({ step: 10, steps: 10 });
  expect((await run({ epochs: 0.5, accumulation: 2 })).result.steps).toBe(3);
  const { steps } = await run({ epochs: 2 });
  expect(steps.map(({ epoch }) => epoch)).toEqual([...new Array(10).fill(0), ...new Array(10).fill(1)]);
});

test("a run ends when its minutes are over, with a checkpoint of what it has", async () => {
  const { result, steps } = await run({ maxSteps: 1_000_000, maxMinutes: 0.01 });
  expect(result.checkpoint).toBeDefined();
  expect(result.step).toBe(steps.length);
  expect(result.step).toBeLessThan(100_000);
});

test("the rate rises over the warm-up and falls along the schedule", async () => {
  const rates = async (changes: Partial<TrainConfig>) =>
    (await run({ learningRate: 1e-3, warmup: 2, maxSteps: 6, ...changes })).steps.map((step) => step.learning_rate);
  const cosine = await rates({});
  expect(cosine[0]).toBeLessThan(cosine[1]);
  expect(Math.max(...cosine)).toBeCloseTo(1e-3, 9);
  expect(cosine.at(-1)).toBeLessThan(5e-4);
  expect((await rates({ schedule: "constant" })).slice(2)).toEqual(new Array(4).fill(1e-3));
});

test("weight decay shrinks the weights by rate × decay a step", async () => {
  const settings = { maxSteps: 2, schedule: "constant", learningRate: 1e-5 } as const;
  expect(ratio((await run(settings)).trained)).toBeCloseTo(1, 3);
  expect(ratio((await run({ ...settings, weightDecay: 10_000 })).trained)).toBeCloseTo(0.9 ** 2, 3);
});

test("clipping scales the gradient that the update sees, not the norm that is logged", async () => {
  const settings = { maxSteps: 1, schedule: "constant", learningRate: 1e-2 } as const;
  const [free, clipped] = [await run(settings), await run({ ...settings, clip: 1e-12 })];
  expect(clipped.steps[0].gradient_norm).toBe(free.steps[0].gradient_norm);
  // Far below AdamW's epsilon nothing moves.
  const moved = ({ trained }: { trained: Parameters }) => Math.abs(ratio(trained) - 1);
  expect(moved(clipped)).toBeLessThan(1e-3 * moved(free));
});

test("the seed decides the order of the data, and so the run", async () => {
  const losses = async (seed: number) => (await run({ seed, maxSteps: 3 })).steps.map(({ loss }) => loss);
  const first = await losses(1);
  expect(await losses(1)).toEqual(first);
  expect(await losses(2)).not.toEqual(first);
});

test("the folder tells what ran, how the held-out loss went at every exit, and draws it", async () => {
  const { out, metrics } = await run({ maxSteps: 4, evalEvery: 2 });
  const record = JSON.parse(await readFile(join(out, "config.json"), "utf8"));
  expect(record).toMatchObject({
    config: { base, data, method: "soft", seed: 42, learningRate: 2e-5, batch: 6 },
    data_sha256: await hashFile(data),
    base_sha256: await hashFile(join(base, "manifest.json")),
    environment: {
      code_sha256: expect.stringMatching(/^[0-9a-f]{64}$/),
      node: process.version,
      onnxruntime: expect.any(String),
    },
  });
  const evaluations = metrics.filter(({ type }) => type === "eval");
  expect(evaluations.map(({ step }) => step)).toEqual([0, 2, 4]);
  for (const { exits: byDepth } of evaluations) {
    expect(Object.keys(byDepth).map(Number)).toEqual(exits);
    for (const score of Object.values(byDepth)) {
      expect(score).toEqual({ loss: expect.any(Number), accuracy: expect.any(Number), agreement: expect.any(Number) });
    }
    expect(byDepth[String(exits.at(-1))].agreement).toBe(1);
  }
  expect(await readFile(join(out, "loss.svg"), "utf8")).toMatch(/^<svg/);
  expect(existsSync(join(out, "state.bin"))).toBe(true);
});
