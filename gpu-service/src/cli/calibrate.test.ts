import { spawn } from "node:child_process";
import { once } from "node:events";
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import type { Calibration } from "@fathom/shared";
import { beforeAll, expect, test } from "vitest";
import { importCheckpoint } from "../checkpoint/import-checkpoint.ts";
import { openCheckpoint } from "../checkpoint/open-checkpoint.ts";
import { temporaryFolder } from "../checkpoint/testing/temporary-folder.ts";
import { updateManifest } from "../checkpoint/update-manifest.ts";
import { weightsHash } from "../checkpoint/weight-files.ts";

const main = new URL("main.ts", import.meta.url).pathname;
const source = new URL("../../../test/fixtures/tiny-llama/tied", import.meta.url).pathname;
const root = temporaryFolder();
const inRoot = (name: string) => join(root, name);

beforeAll(async () => {
  await importCheckpoint(source, inRoot("model"), { exits: [4, 8], weights: "fp32" });
  await importCheckpoint(source, inRoot("single"), { exits: [8], weights: "fp32" });
  await writeFile(inRoot("few.jsonl"), '{"prompt_tokens": [5], "completion_tokens": [6]}');
  await writeFile(inRoot("bad.jsonl"), '{"question": "?"}');
});

async function fathom(...args: string[]): Promise<{ code: number; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [main, ...args], { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  const text = { stdout: "", stderr: "" };
  child.stdout.on("data", (data) => (text.stdout += data));
  child.stderr.on("data", (data) => (text.stderr += data));
  const [code] = await once(child, "close");
  return { code, ...text };
}

test.each([
  ["nowhere", "few.jsonl", "nowhere: there is no such folder"],
  ["single", "few.jsonl", "single: has one exit only, at full depth 8: there is nothing to calibrate"],
  ["model", "nothing.json", "nothing.json: cannot be read"],
  ["model", "bad.jsonl", "bad.jsonl, line 1: has no prompt"],
  ["model", "few.jsonl", "1 prompts cannot certify an agreement of 0.98 with confidence 0.95: that takes at least 165"],
])("calibrate %s with %s says what is wrong in one line", async (dir, data, message) => {
  const { code, stdout, stderr } = await fathom("calibrate", dir, "--data", data, "--agreement", "0.98");
  expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  expect(stderr).toContain(`fathom: ${message}`);
  expect(stderr.trim()).not.toContain("\n");
});

test("inspect prints thresholds and what they guarantee", async () => {
  await cp(inRoot("model"), inRoot("calibrated"), { recursive: true });
  const checkpoint = await openCheckpoint(inRoot("calibrated"));
  const calibration: Calibration = {
    version: 1,
    method: "learn-then-test, betting, fitted",
    created: "2026-01-01T00:00:00.000Z",
    agreement: 0.98,
    confidence: 0.95,
    certified: true,
    p_value: 0.0123,
    weights_sha256: weightsHash(checkpoint.manifest),
    exits: [
      { depth: 4, threshold: 0.9, tokens: 60, agreement: 0.99 },
      { depth: 8, tokens: 40, agreement: 1 },
    ],
    measured: {
      agreement: 0.9912,
      agreement_interval: [0.985, 0.995],
      token_agreement: 0.99,
      mean_layers: 5.6,
      layers_share: 0.7,
    },
    prompts: { fit: 100, certify: 200, left_out: 0 },
    tokens: { fit: 50, certify: 100 },
    max_tokens: 128,
    data: [{ file: "questions.jsonl", sha256: "1".repeat(64), prompts: 300 }],
    seed: 42,
  };
  const inspect = async () => (await fathom("inspect", "calibrated")).stdout;
  expect(await inspect()).not.toContain("thresholds");

  await updateManifest(checkpoint, { thresholds: { 4: 0.9 } });
  expect(await inspect()).toContain("thresholds   4: 0.9\nguarantee    none: set by hand\n");

  await updateManifest(checkpoint, { thresholds: { 4: 0.9 }, calibration });
  expect(await inspect()).toContain(
    "thresholds   4: 0.9\nguarantee    with confidence 0.95, on average at least 0.98 of an answer's first 128 tokens " +
      "equal full depth's (p = 0.012); measured 0.9912 at 70% of the layers on 200 prompts\n",
  );
  expect(JSON.parse((await fathom("inspect", "calibrated", "--json")).stdout).calibration).toEqual({
    ...calibration,
    valid: true,
  });

  await updateManifest(checkpoint, { calibration: { ...calibration, weights_sha256: "2".repeat(64) } });
  expect(await inspect()).toContain("guarantee    none: calibrated on other weights\n");

  const exits = calibration.exits.map(({ threshold: _, ...exit }) => exit);
  await updateManifest(checkpoint, { thresholds: {}, calibration: { ...calibration, certified: false, exits } });
  expect(await inspect()).toContain(
    "thresholds   none, every token goes to full depth\nguarantee    none: an agreement of 0.98 could not be certified\n",
  );
});

test("quantize leaves thresholds and guarantee behind, and says so", async () => {
  await updateManifest(await openCheckpoint(inRoot("model")), { thresholds: { 4: 0.9 } });
  expect((await fathom("quantize", "model", "--out", "int8", "--weights", "int8")).stdout).toBe(
    "tied: int8 in int8; thresholds hold for the old weights only: run fathom calibrate again\n",
  );
  const manifest = JSON.parse(await readFile(inRoot("int8/manifest.json"), "utf8"));
  expect([manifest.thresholds, manifest.calibration]).toEqual([undefined, undefined]);
});
