import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import type { ExecutionProvider } from "../engine/types.ts";
import { type TrainingReference, trainingReference } from "./reference.ts";

const fixtures = new URL("../../../test/fixtures/tiny-llama/", import.meta.url).pathname;
const provider = (process.env.FATHOM_TEST_PROVIDER ?? "cpu") as ExecutionProvider;
const METHODS = ["sft", "soft", "lite", "sorted_sample"] as const;

function relative(actual: number, expected: number): number {
  return Math.abs(actual - expected) / Math.abs(expected);
}

describe.each(["tied", "untied"])(`a %s head, on ${provider}, against PyTorch`, (variant) => {
  const source = join(fixtures, variant);
  const reference: TrainingReference & { soft_adamw: { losses: number[] } } = JSON.parse(
    readFileSync(join(source, "reference.json"), "utf8"),
  );
  let ours: TrainingReference;
  let softGradients: Map<string, Float32Array>;
  let dir: string;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "fathom-oracle-"));
    const result = await trainingReference(source, dir, provider);
    ours = result.reference;
    softGradients = result.softGradients;
  });

  afterAll(() => rm(dir, { recursive: true }));

  test("the loss at every exit is within 1e-5", () => {
    for (const [e, loss] of reference.loss_per_exit.entries())
      expect(relative(ours.loss_per_exit[e] ?? 0, loss)).toBeLessThan(1e-5);
  });

  test.each(METHODS)("%s: loss and gradient norm within 1e-4, every parameter's norm within 1e-3", (method) => {
    const expected = reference[method];
    expect(relative(ours[method].loss, expected.loss)).toBeLessThan(1e-4);
    expect(relative(ours[method].grad_norm, expected.grad_norm)).toBeLessThan(1e-4);
    expect(Object.keys(ours[method].grad_norms).sort()).toEqual(Object.keys(expected.grad_norms).sort());
    for (const [name, norm] of Object.entries(expected.grad_norms)) {
      expect(relative(ours[method].grad_norms[name] ?? 0, norm), name).toBeLessThan(1e-3);
    }
  });

  test("the SoFT gradients are within 1e-4 of each tensor's largest, element by element", () => {
    const expected = readSafetensors(join(source, "soft-gradients.safetensors"));
    expect([...softGradients.keys()].sort()).toEqual([...expected.keys()].sort());
    for (const [name, values] of expected) {
      const actual = softGradients.get(name) ?? new Float32Array();
      const largest = values.reduce((x, y) => Math.max(x, Math.abs(y)), 0);
      const worst = values.reduce((x, y, i) => Math.max(x, Math.abs(y - (actual[i] ?? Number.NaN))), 0);
      expect(worst / largest, name).toBeLessThan(1e-4);
    }
  });

  test("five AdamW steps give the same losses within 1e-3", () => {
    for (const [i, loss] of reference.soft_adamw.losses.entries()) {
      expect(relative(ours.soft_adamw.losses[i] ?? 0, loss), `step ${i}`).toBeLessThan(1e-3);
    }
  });
});

/** The fp32 tensors of a safetensors file: a length, a JSON header, the bytes. */
function readSafetensors(path: string): Map<string, Float32Array> {
  const file = readFileSync(path);
  const length = Number(file.readBigUInt64LE(0));
  const header: Record<string, { data_offsets: [number, number] }> = JSON.parse(file.toString("utf8", 8, 8 + length));
  const tensors = new Map<string, Float32Array>();
  for (const [name, { data_offsets }] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const bytes = file.subarray(8 + length + data_offsets[0], 8 + length + data_offsets[1]);
    tensors.set(name, new Float32Array(Uint8Array.from(bytes).buffer));
  }
  return tensors;
}
