import { createHash } from "node:crypto";
import { writeFileSync } from "node:fs";
import { cp, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { Calibration, type Manifest } from "@fathom/shared";
import { beforeAll, beforeEach, expect, test } from "vitest";
import { importCheckpoint } from "../checkpoint/import-checkpoint.ts";
import { openCheckpoint } from "../checkpoint/open-checkpoint.ts";
import { temporaryFolder } from "../checkpoint/testing/temporary-folder.ts";
import { weightsHash } from "../checkpoint/weight-files.ts";
import { randomStream } from "../random/random-stream.ts";
import { type CalibrateOptions, calibrateCheckpoint } from "./calibrate.ts";
import { NestedEngine, type NestedEngineOptions } from "./testing/nested-engine.ts";

const source = new URL("../../../test/fixtures/tiny-llama/tied", import.meta.url).pathname;
const root = temporaryFolder();
const base = join(root, "base");
const dir = join(root, "model");
const data = join(root, "data.jsonl");
const never = new AbortController().signal;
let architecture: Manifest["architecture"];
let stopTokenId: number;

beforeAll(async () => {
  await importCheckpoint(source, base, { exits: [2, 4, 6, 8], weights: "fp32" });
  const { manifest } = await openCheckpoint(base);
  architecture = manifest.architecture;
  stopTokenId = manifest.tokenizer.eos_token_ids[0] ?? 2;
  const random = randomStream(7);
  const tokens = (count: number) => Array.from({ length: count }, () => 3 + Math.floor(random() * 300));
  const records = Array.from({ length: 400 }, (_, i) => ({
    prompt_tokens: tokens(3 + (i % 5)),
    completion_tokens: [5],
  }));
  await writeFile(data, records.map((record) => JSON.stringify(record)).join("\n"));
});

beforeEach(() => cp(base, dir, { recursive: true, force: true }));

const options: CalibrateOptions = {
  data: [data],
  agreement: 0.95,
  confidence: 0.95,
  test: "betting",
  maxTokens: 16,
  all: true,
  seed: 42,
  parallel: 4,
};

function calibrate(changes: Partial<CalibrateOptions> = {}, model: Partial<NestedEngineOptions> = {}, signal = never) {
  const engines: NestedEngine[] = [];
  const result = calibrateCheckpoint(
    dir,
    { ...options, ...changes },
    {
      signal,
      startEngine: (_, exits) => {
        const engine = new NestedEngine(architecture, exits, { stopTokenId, ...model });
        engines.push(engine);
        return Promise.resolve(engine);
      },
    },
  );
  return { engines, result };
}

test("thresholds and evidence come into the manifest, and the checkpoint stays whole", async () => {
  const before = await readFile(join(dir, "manifest.json"), "utf8");
  const { engines, result } = calibrate();
  const { thresholds, calibration } = await result;
  const { manifest } = await openCheckpoint(dir);
  expect(manifest.thresholds).toEqual(thresholds);
  expect(manifest.calibration).toEqual(calibration);
  expect({ ...manifest, thresholds: undefined, calibration: undefined }).toEqual({
    ...JSON.parse(before),
    thresholds: undefined,
    calibration: undefined,
  });
  expect(await readdir(dir)).toEqual(await readdir(base));

  expect(Calibration.parse(calibration)).toMatchObject({
    method: "learn-then-test, betting, fitted",
    agreement: 0.95,
    confidence: 0.95,
    certified: true,
    prompts: { fit: 133, certify: 267, left_out: 0 },
    max_tokens: 16,
    seed: 42,
    weights_sha256: weightsHash(manifest),
    data: [
      {
        file: "data.jsonl",
        sha256: createHash("sha256")
          .update(await readFile(data))
          .digest("hex"),
        prompts: 400,
      },
    ],
  });
  expect(calibration.template).toBeUndefined();
  expect(calibration.p_value).toBeLessThanOrEqual(0.05);
  const { measured, exits, tokens } = calibration;
  expect(measured.mean_layers).toBeLessThan(6);
  expect(measured.layers_share).toBeCloseTo(measured.mean_layers / 8, 12);
  expect(measured.agreement).toBeGreaterThan(0.95);
  const [low, high] = measured.agreement_interval;
  expect(low <= measured.agreement && measured.agreement <= high).toBe(true);
  expect(exits.map(({ depth }) => depth)).toEqual([2, 4, 6, 8]);
  expect(exits.reduce((sum, exit) => sum + exit.tokens, 0)).toBe(tokens.certify);
  expect(exits.at(-1)).toMatchObject({ agreement: 1 });

  const [engine] = engines;
  expect(engine?.closed).toBe(true);
  expect(engine?.requests).toHaveLength(400);
  for (const { depth, sampling, policy } of engine?.requests ?? []) {
    expect([depth, sampling.temperature, policy]).toEqual([8, 0, undefined]);
  }
});

test("the same seed gives the same thresholds, however many prompts are in work; a new run replaces the old", async () => {
  const first = await calibrate({ parallel: 1 }).result;
  const again = await calibrate({ parallel: 16 }).result;
  expect({ ...again.calibration, created: "" }).toEqual({ ...first.calibration, created: "" });
  const other = await calibrate({ seed: 43, exits: [4], prompts: 300, maxTokens: 8 }).result;
  expect(Object.keys(other.thresholds)).toEqual(["4"]);
  expect(other.calibration.exits.map(({ depth }) => depth)).toEqual([4, 8]);
  expect((await openCheckpoint(dir)).manifest).toMatchObject({
    thresholds: other.thresholds,
    calibration: { seed: 43, max_tokens: 8, prompts: { fit: 100, certify: 200 } },
  });
});

test("what cannot be certified leaves no thresholds, and takes earlier ones away", async () => {
  await calibrate().result;
  const { thresholds, calibration } = await calibrate({}, { wrong: 0.3, unsure: 0, saturated: true }).result;
  expect(thresholds).toEqual({});
  expect(calibration).toMatchObject({ certified: false, p_value: null, measured: { agreement: 1, mean_layers: 8 } });
  expect((await openCheckpoint(dir)).manifest.thresholds).toEqual({});
});

test("the decision to end an answer counts, a cut answer's next token does not", async () => {
  const { calibration } = await calibrate({ maxTokens: 1 }).result;
  expect(calibration.tokens).toEqual({ fit: 133, certify: 267 });
});

async function unchanged(work: Promise<unknown>, message: string | RegExp): Promise<void> {
  await expect(work).rejects.toThrow(message);
  expect(await readFile(join(dir, "manifest.json"), "utf8")).toBe(await readFile(join(base, "manifest.json"), "utf8"));
  expect(await readdir(dir)).toEqual(await readdir(base));
}

test("an interruption leaves the manifest as it was", async () => {
  const controller = new AbortController();
  const onAnswer = (count: number) => {
    if (count === 50) controller.abort(new Error("enough"));
  };
  const { engines, result } = calibrate({}, { onAnswer }, controller.signal);
  await unchanged(result, "enough");
  expect(engines[0]?.closed).toBe(true);
  expect(engines[0]?.requests.length).toBeLessThan(60);
});

test("an engine that scores other tokens than it generated is refused", async () => {
  await unchanged(calibrate({}, { broken: true }).result, "scoring the answers gives other tokens");
});

test("weights that change meanwhile are noticed", async () => {
  const path = join(dir, "manifest.json");
  const manifest = JSON.parse(await readFile(path, "utf8"));
  manifest.files[0].sha256 = "0".repeat(64);
  const altered = JSON.stringify(manifest);
  const onAnswer = (count: number) => {
    if (count === 1) writeFileSync(path, altered);
  };
  await expect(calibrate({}, { onAnswer }).result).rejects.toThrow("has other weights than when it was opened");
  expect(await readFile(path, "utf8")).toBe(altered);
});

test.each<[string, Partial<CalibrateOptions>, string]>([
  ["a missing file", { data: ["nowhere.json"] }, "nowhere.json: cannot be read"],
  ["too few prompts", { agreement: 0.995 }, "400 prompts cannot certify an agreement of 0.995"],
  ["more prompts than there are", { prompts: 401 }, "--prompts 401: the data hold 400 usable prompts"],
  ["held-out records only", { all: false }, "8 prompts cannot certify an agreement of 0.95 with confidence 0.95"],
  ["an unknown exit", { exits: [3] }, "there is no exit at depth 3; exits are 2, 4, 6, 8"],
  ["full depth alone", { exits: [8] }, "name an exit before it: 2, 4, 6"],
  ["an answer that fills the context", { maxTokens: 100_000 }, "--max-tokens 100000 leaves no room"],
])("%s is named, and nothing is run", async (_, changes, message) => {
  const { engines, result } = calibrate(changes);
  await unchanged(result, message);
  expect(engines).toEqual([]);
});

test("a checkpoint with one exit has nothing to calibrate", async () => {
  const single = join(root, "single");
  await importCheckpoint(source, single, { exits: [8], weights: "fp32" });
  await expect(calibrateCheckpoint(single, options, { signal: never })).rejects.toThrow(
    `${single}: has one exit only, at full depth 8: there is nothing to calibrate`,
  );
});
