import { existsSync } from "node:fs";
import { cp, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { exportCheckpoint } from "../checkpoint/export/export-checkpoint.ts";
import { hashFile } from "../checkpoint/hash-file.ts";
import { openCheckpoint } from "../checkpoint/open-checkpoint.ts";
import { temporaryFolder } from "../checkpoint/testing/temporary-folder.ts";
import { loadEngine } from "../engine/load-engine.ts";
import { randomStream } from "../random/random-stream.ts";
import { parseConfig, type TrainConfig } from "./config.ts";
import { loadParameters } from "./parameters.ts";
import { exportAdapters, exportLastState, resumeRun, startRun } from "./run.ts";
import { importTiny } from "./testing/tiny-model.ts";

const root = temporaryFolder();
const base = join(root, "base");
const data = join(root, "data.jsonl");
const never = new AbortController().signal;
let exits: number[];

beforeAll(async () => {
  ({ exits } = await importTiny("untied", base));
  const random = randomStream(7);
  const tokens = (count: number) => Array.from({ length: count }, () => 3 + Math.floor(random() * 300));
  const records = Array.from({ length: 60 }, (_, i) => ({
    prompt_tokens: tokens(2 + (i % 5)),
    completion_tokens: tokens(3 + (i % 7)),
  }));
  await writeFile(data, records.map((record) => JSON.stringify(record)).join("\n"));
});

function config(changes: Partial<TrainConfig> = {}): TrainConfig {
  const settings = { base, data, method: "sortednet", exitsPerStep: 2, alwaysFull: true, batch: 4, maxSteps: 6 };
  const rest = { distill: 0.5, teacher: "base", freeze: "embeddings,layers:0", learningRate: 1e-3, evalEvery: 3 };
  return parseConfig({ ...settings, ...rest, accumulation: 2, ...changes }, "test");
}

async function metrics(folder: string): Promise<string> {
  const lines = (await readFile(join(folder, "metrics.jsonl"), "utf8")).trim().split("\n");
  return lines.map((line) => JSON.stringify({ ...JSON.parse(line), tokens_per_second: 0 })).join("\n");
}

/** Aborts once `steps` steps are done. */
function stopAfter(steps: number) {
  const controller = new AbortController();
  const onStep = ({ step }: { step: number }) => {
    if (step + 1 === steps) controller.abort();
  };
  return { signal: controller.signal, listener: { onStep } };
}

test("a run that was stopped twice goes on bit for bit", async () => {
  const [whole, broken] = [join(root, "whole"), join(root, "broken")];
  const result = await startRun(whole, config(), never);
  expect(result.checkpoint).toBe(join(whole, "checkpoint"));
  for (const steps of [2, 5]) {
    const { signal, listener } = stopAfter(steps);
    const stopped =
      steps === 2 ? await startRun(broken, config(), signal, listener) : await resumeRun(broken, {}, signal, listener);
    expect(stopped).toEqual({ step: steps, steps: 6, checkpoint: undefined });
  }
  await resumeRun(broken, {}, never);
  expect(await metrics(broken)).toBe(await metrics(whole));
  const weights = async (dir: string) => loadParameters(await openCheckpoint(join(dir, "checkpoint")));
  expect(await weights(broken)).toEqual(await weights(whole));
});

test("the result is a whole checkpoint: frozen parts as they were, others trained", async () => {
  const out = join(root, "frozen");
  await startRun(out, config({ maxSteps: 2 }), never);
  const before = await loadParameters(await openCheckpoint(base));
  const checkpoint = await openCheckpoint(join(out, "checkpoint"));
  const after = await loadParameters(checkpoint);
  expect(checkpoint.manifest.exits).toEqual(exits);
  for (const [name, values] of before) {
    const fixed = name === "embed" || name.startsWith("layers.0.");
    if (fixed) expect(after.get(name), name).toEqual(values);
    else expect(after.get(name), name).not.toEqual(values);
  }
});

test.each(["sft", "soft", "lite", "sortednet"] as const)("%s lowers the loss it trains on", async (method) => {
  const out = join(root, method);
  const settings = { method, maxSteps: 20, distill: 0, freeze: "", accumulation: 1, learningRate: 3e-3 };
  await startRun(out, config({ ...settings, schedule: "constant", batch: 64 }), never);
  const steps = (await metrics(out))
    .split("\n")
    .map((line) => JSON.parse(line))
    .filter(({ type }) => type === "step");
  const full = String(exits.at(-1));
  const losses = steps.map(({ exits: byDepth }) => byDepth[full]?.loss).filter((loss) => loss !== undefined);
  expect(losses.at(-1)).toBeLessThan(0.9 * losses[0]);
});

test("ict trains heads of the exits' own, leaves the rest, resumes, and the engine serves them", async () => {
  const out = join(root, "ict");
  const settings = { method: "ict", distill: 0, freeze: "", accumulation: 1, batch: 64, learningRate: 3e-3 } as const;
  const { signal, listener } = stopAfter(7);
  await startRun(out, config({ ...settings, schedule: "constant", maxSteps: 15 }), signal, listener);
  await resumeRun(out, {}, never);
  const lines = (await metrics(out)).split("\n").map((line) => JSON.parse(line));
  const losses = lines.filter(({ type }) => type === "step").map(({ loss }) => loss);
  expect(losses).toHaveLength(15);
  expect(losses.at(-1)).toBeLessThan(0.9 * losses[0]);

  const trained = await openCheckpoint(join(out, "checkpoint"));
  expect(trained.manifest.exit_heads).toEqual(exits.slice(0, -1));
  expect(await loadParameters(trained)).toEqual(await loadParameters(await openCheckpoint(base)));
  const [before, after] = await Promise.all([
    loadEngine(base, { threads: 1 }),
    loadEngine(trained.dir, { threads: 1 }),
  ]);
  const [own, shared] = [await after.probe([5, 9], exits), await before.probe([5, 9], exits)];
  for (const [e, { logits }] of own.entries()) {
    if (e === exits.length - 1) expect(logits).toEqual(shared[e]?.logits);
    else expect(logits).not.toEqual(shared[e]?.logits);
  }
  await Promise.all([before.close(), after.close()]);

  // transformers has no place for the heads, and the export says so.
  await exportCheckpoint(trained.dir, join(root, "ict-hf"));
  const card = await readFile(join(root, "ict-hf/README.md"), "utf8");
  expect(card).toContain(`The own heads of the exits ${exits.slice(0, -1).join(", ")} are left out`);
});

test("low-rank adapters train, resume bit for bit, and are merged into an ordinary checkpoint", async () => {
  const lora = { method: "soft", loraRank: 4, distill: 0, freeze: "layers:0", accumulation: 1, batch: 64 } as const;
  const settings = config({ ...lora, learningRate: 1e-2, schedule: "constant", maxSteps: 12 });
  const [whole, broken] = [join(root, "lora"), join(root, "lora-broken")];
  await startRun(whole, settings, never);
  const { signal, listener } = stopAfter(5);
  await startRun(broken, settings, signal, listener);
  await resumeRun(broken, {}, never);
  expect(await metrics(broken)).toBe(await metrics(whole));
  const lines = (await metrics(whole)).split("\n").map((line) => JSON.parse(line));
  const losses = lines.filter(({ type }) => type === "step").map(({ loss }) => loss);
  expect(losses.at(-1)).toBeLessThan(0.95 * losses[0]);

  // Another run starts where this one ended, but for the rounding to float16 (2^-11 of each value).
  const [file, next] = [join(root, "adapters.safetensors"), join(root, "lora-next")];
  expect(await exportAdapters(whole, file)).toEqual({ step: 12 });
  await startRun(next, { ...settings, initAdapters: file, maxSteps: 1 }, never);
  const held = (text: string) => Object.values(JSON.parse(text).exits).map((exit) => (exit as { loss: number }).loss);
  const [last, first] = [held(JSON.stringify(lines.at(-1))), held((await metrics(next)).split("\n")[0] ?? "")];
  for (const [e, loss] of first.entries()) expect(Math.abs(loss - (last[e] ?? 0))).toBeLessThan(5e-3);
  const record = JSON.parse(await readFile(join(next, "config.json"), "utf8"));
  expect(record).toMatchObject({ config: { initAdapters: file }, adapters_sha256: await hashFile(file) });
  expect(await resumeRun(next, { maxSteps: 2 }, never)).toMatchObject({ step: 2 });
  for (const [changes, message] of [
    [
      { loraRank: 5 },
      /adapters\.safetensors: adapter 'layers\.1\.attn\.qkv\.lora_a' has shape \[4,\d+\], but the run's rank/,
    ],
    [{ freeze: "layers:0-1" }, /'layers\.1\.attn\.qkv\.lora_a' is no adapter of a layer that this run trains/],
    [{ freeze: "" }, /tensor 'layers\.0\.attn\.qkv\.lora_a' is missing/],
  ] as const) {
    await expect(
      startRun(join(root, "refused"), { ...settings, initAdapters: file, ...changes }, never),
    ).rejects.toThrow(message);
  }
  await expect(exportAdapters(join(root, "whole"), file)).rejects.toThrow(/the run trains no adapters/);

  const before = await loadParameters(await openCheckpoint(base));
  const checkpoint = await openCheckpoint(join(whole, "checkpoint"));
  expect(Object.keys(checkpoint.manifest.tensors).filter((name) => name.includes("lora"))).toEqual([]);
  for (const [name, values] of await loadParameters(checkpoint)) {
    const adapted = /^layers\.[1-9].*(attn\.|mlp\.)/.test(name);
    if (adapted) expect(values, name).not.toEqual(before.get(name));
    else expect(values, name).toEqual(before.get(name));
  }
});

test("another checkpoint teaches, and a run goes on only with the teacher that it started with", async () => {
  const [own, other] = [join(root, "taught"), join(root, "taught-by-folder")];
  const teacher = join(root, "teacher");
  await cp(base, teacher, { recursive: true });
  await startRun(own, config({ maxSteps: 2 }), never);
  await startRun(other, config({ maxSteps: 2, teacher }), never);
  expect(await metrics(other)).toBe(await metrics(own));

  const manifest = join(teacher, "manifest.json");
  await writeFile(manifest, `${await readFile(manifest, "utf8")} `);
  await expect(resumeRun(other, { maxSteps: 3 }, never)).rejects.toThrow(
    `${teacher}: is not the teacher that the run in ${other} started with`,
  );
  const tied = join(root, "tied-teacher");
  await importTiny("tied", tied);
  await expect(startRun(join(root, "refused"), config({ teacher: tied }), never)).rejects.toThrow(
    `${tied}: cannot teach, its architecture is not that of ${base}`,
  );
  await expect(startRun(join(root, "refused"), config({ teacher: join(root, "nobody") }), never)).rejects.toThrow(
    "nobody",
  );
});

test("a state that a crash cut short is not taken, and the last good one is used", async () => {
  const out = join(root, "crashed");
  const { signal, listener } = stopAfter(2);
  await startRun(out, config(), signal, listener);
  await writeFile(join(out, "state.bin.partial"), "half a state");
  await writeFile(join(out, "metrics.jsonl"), `${await readFile(join(out, "metrics.jsonl"), "utf8")}{"type":"st`);
  const result = await resumeRun(out, {}, never);
  expect(result.step).toBe(6);
  expect(await metrics(out)).toBe(await metrics(join(root, "whole")));
});

test("a loss that is no number ends the run, and neither it nor what led to it replaces a good state", async () => {
  const out = join(root, "diverged");
  const { signal, listener } = stopAfter(2);
  await startRun(out, config(), signal, listener);
  const good = await readFile(join(out, "state.bin"));
  const record = JSON.parse(await readFile(join(out, "config.json"), "utf8"));
  record.config.learningRate = 1e30;
  await writeFile(join(out, "config.json"), JSON.stringify(record));
  // A save is due at every step: the one between the bad update and the loss that shows it, too.
  const resumed = resumeRun(out, { saveEvery: 1e-9, evalEvery: 100, maxSteps: 9 }, never);
  await expect(resumed).rejects.toThrow(/step 3: the loss is (NaN|.*Infinity).* try a lower learning rate/);
  expect((await readFile(join(out, "state.bin"))).equals(good)).toBe(true);
  const last = resumeRun(out, { evalEvery: 100, maxSteps: 3 }, never);
  await expect(last).rejects.toThrow(/step 3: the held-out loss at depth \d+ is NaN/);
  expect((await readFile(join(out, "state.bin"))).equals(good)).toBe(true);
  expect(existsSync(join(out, "checkpoint"))).toBe(false);
});

test("a saved state can be exported before the run is done", async () => {
  const out = join(root, "early");
  const { signal, listener } = stopAfter(3);
  await startRun(out, config(), signal, listener);
  const { step, checkpoint } = await exportLastState(out);
  expect(step).toBe(3);
  expect((await openCheckpoint(checkpoint ?? "")).manifest.provenance.notes).toContain("for 3 steps");
});

test("what does not fit is refused by name", async () => {
  const out = join(root, "refused");
  const start = (changes: Partial<TrainConfig>) => startRun(out, config(changes), never);
  await expect(start({ exits: [1, 99] })).rejects.toThrow("exits 1,99: the last one must be the full depth");
  await expect(start({ freeze: "layers:7-9" })).rejects.toThrow("'layers:7-9': the layers are 0-");
  await expect(start({ learningRate: 1e30 })).rejects.toThrow(/the loss is (NaN|.*Infinity)/);
  await expect(start({})).rejects.toThrow("holds a training run; use --resume");
  await expect(resumeRun(join(root, "nowhere"), {}, never)).rejects.toThrow("holds no training run to resume");
  const manifest = join(base, "manifest.json");
  const text = await readFile(manifest, "utf8");
  await writeFile(manifest, `${text}\n`);
  await expect(resumeRun(join(root, "whole"), {}, never)).rejects.toThrow("is not the base that the run");
  await writeFile(manifest, text);
  await writeFile(data, `${await readFile(data, "utf8")}\n`);
  await expect(resumeRun(join(root, "whole"), {}, never)).rejects.toThrow("is not the data that the run");
});
