import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { bytesAt, parametersAt, tensorShapes } from "@fathom/shared";
import { afterAll, beforeAll, expect, test } from "vitest";
import { CheckpointWriter } from "../checkpoint/checkpoint-writer.ts";
import { importCheckpoint } from "../checkpoint/import-checkpoint.ts";
import { type Checkpoint, openCheckpoint } from "../checkpoint/open-checkpoint.ts";
import { readTensor } from "../checkpoint/read-tensor.ts";
import { requantize } from "../checkpoint/requantize.ts";
import { loadEngine } from "./load-engine.ts";

const source = new URL("../../../test/fixtures/tiny-llama/tied", import.meta.url).pathname;
let dir: string;
let shared: Checkpoint;
let own: Checkpoint;

/** The trunk of `shared` with a head of its own at depth 4: the shared one, negated. */
beforeAll(async () => {
  dir = await mkdtemp(join(tmpdir(), "fathom-exit-heads-"));
  await importCheckpoint(source, join(dir, "shared"), { exits: [2, 4, 8], weights: "fp32" });
  shared = await openCheckpoint(join(dir, "shared"));
  const { architecture } = shared.manifest;
  const writer = await CheckpointWriter.create(join(dir, "own"), { ...shared.manifest, exit_heads: [4] });
  for (const name of tensorShapes(architecture, [4]).keys()) {
    if (name === "exits.4.norm") await writer.writeTensor(name, await readTensor(shared, "norm"));
    else if (name === "exits.4.head")
      await writer.writeTensor(
        name,
        (await readTensor(shared, "embed")).map((x) => -x),
      );
    else await writer.writeTensor(name, await readTensor(shared, name));
  }
  await writer.finish();
  own = await openCheckpoint(join(dir, "own"));
});

afterAll(() => rm(dir, { recursive: true }));

test("an exit goes through its own head, the others through the shared one", async () => {
  const [a, b] = await Promise.all([loadEngine(shared.dir, { threads: 1 }), loadEngine(own.dir, { threads: 1 })]);
  const [expected, actual] = await Promise.all([a.probe([5, 9, 12], [2, 4, 8]), b.probe([5, 9, 12], [2, 4, 8])]);
  expect(actual[0]?.logits).toEqual(expected[0]?.logits);
  expect(actual[1]?.logits).toEqual(expected[1]?.logits.map((x) => -x));
  expect(actual[2]?.logits).toEqual(expected[2]?.logits);
  await Promise.all([a.close(), b.close()]);
});

test("the extra head counts where it runs, and only there", () => {
  const { architecture } = own.manifest;
  const extra = 320 * 96 + 96;
  expect(parametersAt(architecture, 4, [4]) - parametersAt(architecture, 4)).toBe(320 * 96);
  expect(parametersAt(architecture, 8, [4])).toBe(parametersAt(architecture, 8));
  expect(bytesAt(own.manifest, 8)).toBe(bytesAt(shared.manifest, 8));
  const size = (checkpoint: Checkpoint) => checkpoint.manifest.files.reduce((sum, { bytes }) => sum + bytes, 0);
  expect(size(own) - size(shared)).toBeGreaterThanOrEqual(extra * 4);
});

test("re-encoding keeps the heads of the exits that stay", async () => {
  const kept = await requantize(own, join(dir, "int8"), "int8");
  expect(kept.exit_heads).toEqual([4]);
  expect(kept.tensors["exits.4.head"]?.format).toBe("int8");
  const dropped = await requantize(own, join(dir, "without"), "fp32", { exits: [2, 8] });
  expect(dropped.exit_heads).toBeUndefined();
  expect(dropped.tensors).not.toHaveProperty(["exits.4.head"]);
});
