import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { existsSync } from "node:fs";
import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { LAYER_MATRICES } from "@fathom/shared";
import { beforeAll, expect, test } from "vitest";
import { openCheckpoint } from "../checkpoint/open-checkpoint.ts";
import { temporaryFolder } from "../checkpoint/testing/temporary-folder.ts";
import { importTiny } from "../train/testing/tiny-model.ts";

const main = new URL("main.ts", import.meta.url).pathname;
const root = temporaryFolder();
const inRoot = (name: string) => join(root, name);

beforeAll(async () => {
  await importTiny("tied", inRoot("base"));
  const records = Array.from({ length: 40 }, (_, i) => ({
    prompt_tokens: [3 + i, 5],
    completion_tokens: [7, 9 + i, 2],
  }));
  const lines = records.map((record) => JSON.stringify(record));
  await writeFile(inRoot("data.jsonl"), lines.join("\n"));
  await writeFile(inRoot("fitting.jsonl"), [...lines, ...lines, ...lines].join("\n"));
});

interface Result {
  code: number | null;
  signal: string | null;
  stdout: string;
  stderr: string;
}

function start(...args: string[]): { child: ChildProcess; result: Promise<Result> } {
  const child = spawn(process.execPath, [main, ...args], { cwd: root, stdio: ["ignore", "pipe", "pipe"] });
  const text = { stdout: "", stderr: "" };
  child.stdout.on("data", (data) => (text.stdout += data));
  child.stderr.on("data", (data) => (text.stderr += data));
  return { child, result: once(child, "close").then(([code, signal]) => ({ code, signal, ...text })) };
}

const fathom = (...args: string[]): Promise<Result> => start(...args).result;
const settings = ["--base", "base", "--data", "data.jsonl", "--method", "soft"];
const endless = [...settings, "--max-steps", "1000000", "--eval-records", "0"];

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((done) => setTimeout(done, 20));
}

async function steps(run: string): Promise<number> {
  const path = join(inRoot(run), "metrics.jsonl");
  return existsSync(path) ? (await readFile(path, "utf8")).split("\n").length : 0;
}

test("train, then quantise", async () => {
  const trained = await fathom("train", ...settings, "--max-steps", "3", "--eval-every", "2", "--out", "run");
  expect(trained.stderr).toBe("");
  expect(trained.stdout).toContain("39 records to train on, 1 held out, 0 cut, 0 left out\nstep 0, held out: ");
  expect(trained.stdout).toContain(`step 3: ${inRoot("run/checkpoint")}\n`);
  expect(existsSync(inRoot("run/pid"))).toBe(false);

  const quantised = await fathom("quantize", "run/checkpoint", "--out", "int8", "--weights", "int8");
  expect(quantised).toMatchObject({ code: 0, stderr: "" });
  const [before, after] = [await openCheckpoint(inRoot("run/checkpoint")), await openCheckpoint(inRoot("int8"))];
  expect(after.manifest.quantization.layers).toBe("int8");
  expect(after.manifest.exits).toEqual(before.manifest.exits);
});

test.each([
  [[], true],
  [["--no-offsets"], false],
  [
    ["--offsets", "attn.o,layers:1"],
    ["layers.0.attn.o", ...LAYER_MATRICES.map((matrix) => `layers.1.${matrix}`)],
  ],
])("quantise to int4 fitted to records %s", async (args, offsets) => {
  const out = `gptq-${args.length}-${offsets === true}`;
  const calibration = ["--calibrate", "fitting.jsonl", "--calibration-tokens", "100"];
  const { code, stderr, stdout } = await fathom("quantize", "base", "--out", out, ...calibration, ...args);
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(stdout).toMatch(new RegExp(`: int4 in ${out}\n$`));
  const { manifest } = await openCheckpoint(inRoot(out));
  const expected = typeof offsets === "boolean" ? offsets : expect.arrayContaining(offsets);
  expect(manifest.quantization).toMatchObject({ layers: "int4", offsets: expected });
  expect(manifest.provenance.notes).toMatch(/to int4 by GPTQ on \d+ tokens/);
});

test.each([
  [["--calibrate", "missing.jsonl"], "missing.jsonl: cannot be read"],
  [["--calibrate", "empty.jsonl"], "empty.jsonl, line 1: is empty"],
  [["--calibrate", "data.jsonl", "--weights", "int8"], "calibration is for int4; int8 needs none"],
  [["--calibrate", "data.jsonl", "--calibration-tokens", "0"], "calibration-tokens"],
  [["--calibrate", "data.jsonl", "--offsets", "body"], "--offsets: 'body' is none of attn.qkv,"],
  [["--keep", "nowhere"], "nowhere"],
])("quantize refuses %s in one line and writes nothing", async (args, message) => {
  await writeFile(inRoot("empty.jsonl"), "");
  const { code, stderr } = await fathom("quantize", "base", "--out", "refused", ...args);
  expect(code).toBeGreaterThan(0);
  expect(stderr.trim().split("\n")).toHaveLength(1);
  expect(stderr).toContain(message);
  expect(existsSync(inRoot("refused"))).toBe(false);
});

test("SIGTERM saves and exits 0, and the run can go on", async () => {
  const { child, result } = start("train", ...endless, "--out", "stopped");
  await until(async () => (await steps("stopped")) > 3);
  child.kill("SIGTERM");
  const { code, stdout } = await result;
  expect(code).toBe(0);
  const step = Number(/saved at step (\d+) of 1000000/.exec(stdout)?.[1]);
  const resumed = await fathom("train", "--resume", "--out", "stopped", "--max-steps", String(step + 2));
  expect(resumed.stderr).toBe("");
  expect(resumed.stdout).toContain(`step ${step + 2}: `);
});

test("after kill -9 the last saved state is usable", async () => {
  const { child, result } = start("train", ...endless, "--save-every", "0.001", "--out", "killed");
  await until(() => existsSync(inRoot("killed/state.bin")));
  child.kill("SIGKILL");
  expect((await result).signal).toBe("SIGKILL");
  const exported = await fathom("train", "--export-only", "--out", "killed");
  expect(exported.stderr).toBe("");
  const step = Number(/^step (\d+): /.exec(exported.stdout)?.[1]);
  expect(step).toBeGreaterThan(0);
  await expect(openCheckpoint(inRoot("killed/checkpoint"))).resolves.toBeDefined();
  const resumed = await fathom("train", "--resume", "--out", "killed", "--max-steps", String(step + 1));
  expect(resumed.code).toBe(0);
});

test("two processes never train in one folder", async () => {
  const { child, result } = start("train", ...endless, "--out", "busy");
  await until(async () => (await steps("busy")) > 3);
  child.kill("SIGSTOP");
  await writeFile(inRoot("busy/state.bin.other"), "");
  const second = await fathom("train", "--resume", "--out", "busy");
  child.kill("SIGCONT");
  child.kill("SIGTERM");
  expect(second.code).toBe(1);
  expect(second.stderr).toMatch(/^fathom: .*busy: process \d+ is training in it; if it is not, remove .*busy\/pid\n$/);
  expect((await result).code).toBe(0);
});

test.each([
  [["--method", "magic"], "argument 'magic' is invalid"],
  [["--exits", "1,99"], "the last one must be the full depth"],
  [["--distill", "2"], "It must be a number from 0 to 1"],
  [["--data", "missing.jsonl"], "missing.jsonl: cannot be read"],
  [["--freeze", "soul"], "'soul' is none of embeddings, head, norm"],
  [["--exit-weights", "1,2", "--method", "soft"], "'exitWeights' is for the methods lite and sortednet"],
  [["--config", "data.jsonl"], "data.jsonl: cannot be used"],
])("%s is refused in one line", async (args, message) => {
  const { code, stderr } = await fathom("train", ...settings, ...args, "--out", "refused");
  expect(code).toBeGreaterThan(0);
  expect(stderr.trim().split("\n")).toHaveLength(1);
  expect(stderr).toContain(message);
  expect(existsSync(inRoot("refused"))).toBe(false);
});

test("what a run cannot do without is asked for", async () => {
  for (const missing of ["--base", "--data", "--method"]) {
    const at = settings.indexOf(missing);
    const { code, stderr } = await fathom("train", ...settings.toSpliced(at, 2), "--out", "refused");
    expect(code).toBe(1);
    expect(stderr).toBe(`fathom: options: '${missing.slice(2)}': is missing\n`);
  }
});

test("settings come from a file, and options override it", async () => {
  const file = { base: "base", data: "data.jsonl", method: "sft", maxSteps: 9, spinning: false, batch: 5 };
  await writeFile(inRoot("settings.json"), JSON.stringify(file));
  await fathom("train", "--config", "settings.json", "--max-steps", "1", "--out", "configured");
  const { config, environment } = JSON.parse(await readFile(inRoot("configured/config.json"), "utf8"));
  expect(config).toMatchObject({
    method: "sft",
    maxSteps: 1,
    spinning: false,
    batch: 5,
    base: inRoot("base"),
    seed: 42,
  });
  expect(environment.code_sha256).toMatch(/^[0-9a-f]{64}$/);
  const changed = await fathom("train", "--resume", "--out", "configured", "--batch", "2");
  expect(changed).toMatchObject({ code: 2 });
  expect(changed.stderr).toContain("--resume keeps the run's settings; it cannot change batch");
});
