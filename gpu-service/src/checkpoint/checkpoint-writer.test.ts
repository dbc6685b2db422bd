import { mkdir, mkdtemp, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { type Architecture, layerMatrixShape, tensorShapes, type WeightFormat } from "@fathom/shared";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type CheckpointHeader, CheckpointWriter } from "./checkpoint-writer.ts";
import { openCheckpoint } from "./open-checkpoint.ts";
import { readTensor, readTensorBytes } from "./read-tensor.ts";
import { weightPlan } from "./weight-plan.ts";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "fathom-writer-"));
});
afterAll(() => rm(root, { recursive: true }));

// 80 is two and a half blocks of 32, so the last block of a row is padded.
const architecture: Architecture = {
  type: "llama",
  hidden_size: 80,
  intermediate_size: 112,
  layers: 2,
  heads: 4,
  kv_heads: 2,
  head_dim: 16,
  vocab_size: 300,
  rms_norm_eps: 1e-5,
  context_length: 64,
  rope: { theta: 10000 },
  tied: false,
};

function header(weights: WeightFormat): CheckpointHeader {
  return {
    name: "tiny",
    architecture,
    exits: [1, 2],
    quantization: weightPlan(weights),
    tokenizer: { bos_token_id: 1, eos_token_ids: [2] },
    provenance: { source: "test", created: "2025-01-01T00:00:00.000Z" },
  };
}

function values(name: string, length: number): Float32Array {
  let state = [...name].reduce((hash, letter) => Math.imul(hash, 31) + letter.charCodeAt(0), 7) | 1;
  return Float32Array.from({ length }, () => {
    state = (Math.imul(state, 1664525) + 1013904223) | 0;
    return state / 2 ** 33;
  });
}

async function write(dir: string, weights: WeightFormat, force = false): Promise<void> {
  const writer = await CheckpointWriter.create(dir, header(weights), { force });
  for (const [name, shape] of tensorShapes(architecture)) {
    await writer.writeTensor(
      name,
      values(
        name,
        shape.reduce((a, b) => a * b, 1),
      ),
    );
  }
  await writer.writeFile("tokenizer.json", "{}");
  await writer.finish();
}

/** What float16 loses; half a step of the widest block; two whole ones, since int4 clips where that helps the rest. */
const TOLERANCE: Record<WeightFormat, number> = {
  fp32: 0,
  fp16: 2 ** -13,
  int8: 0.25 / 254 + 1e-4,
  int4: (2 * 0.5) / 15,
};

test.each(["fp32", "fp16", "int8", "int4"] as const)("%s tensors come back as they were written", async (weights) => {
  const dir = join(root, weights);
  await write(dir, weights);
  const checkpoint = await openCheckpoint(dir);
  for (const [name, shape] of tensorShapes(architecture)) {
    const expected = values(
      name,
      shape.reduce((a, b) => a * b, 1),
    );
    const found = await readTensor(checkpoint, name);
    expect(found.length).toBe(expected.length);
    const worst = expected.reduce((max, value, i) => Math.max(max, Math.abs(value - (found[i] ?? Number.NaN))), 0);
    expect(worst, name).toBeLessThanOrEqual(shape.length === 1 ? 0 : TOLERANCE[weights]);
  }
});

test("ranges are aligned, and large ones start at a page", async () => {
  const dir = join(root, "aligned");
  await write(dir, "fp32");
  const { manifest } = await openCheckpoint(dir);
  for (const { data } of Object.values(manifest.tensors)) {
    expect(data.offset % (data.bytes >= 65536 ? 4096 : 64)).toBe(0);
  }
});

test("writing in chunks of rows gives the same bytes as writing at once", async () => {
  const dirs = [join(root, "whole"), join(root, "chunked")] as const;
  await write(dirs[0], "int4");
  const writer = await CheckpointWriter.create(dirs[1], header("int4"));
  for (const [name, shape] of tensorShapes(architecture)) {
    const row = shape.at(-1) ?? 1;
    const all = values(
      name,
      shape.reduce((a, b) => a * b, 1),
    );
    await writer.writeTensor(
      name,
      (function* () {
        for (let i = 0; i < all.length; i += 7 * row) yield all.subarray(i, i + 7 * row);
      })(),
    );
  }
  await writer.writeFile("tokenizer.json", "{}");
  await writer.finish();
  const [whole, chunked] = await Promise.all(dirs.map((dir) => openCheckpoint(dir)));
  expect(chunked?.manifest).toEqual(whole?.manifest);
});

test("the last block of a row is padded with codes that mean zero", async () => {
  const dir = join(root, "int8");
  const checkpoint = await openCheckpoint(dir);
  const { data, scales } = await readTensorBytes(checkpoint, "layers.0.attn.qkv");
  const [n, k] = layerMatrixShape(architecture, "attn.qkv");
  expect(k).toBe(80);
  expect(data.length).toBe(n * 3 * 32);
  expect(scales?.length).toBe(n * 3 * 2);
  expect([...data.subarray(80, 96)]).toEqual(new Array(16).fill(128));
});

test("an aborted write leaves nothing behind", async () => {
  const parent = join(root, "aborted");
  await mkdir(parent);
  const writer = await CheckpointWriter.create(join(parent, "out"), header("fp32"));
  await writer.writeTensor("embed", values("embed", 300 * 80));
  expect(await readdir(parent)).toHaveLength(1);
  await writer.abort();
  expect(await readdir(parent)).toEqual([]);
});

test("refuses tensors out of order, of the wrong size or with values that cannot be stored", async () => {
  const writer = await CheckpointWriter.create(join(root, "refused"), header("fp16"));
  await expect(writer.writeTensor("norm", new Float32Array(80))).rejects.toThrow("'embed' is next");
  await expect(writer.writeTensor("embed", new Float32Array(80))).rejects.toThrow("do not fill the shape [300,80]");
  await writer.abort();
  for (const bad of [Number.NaN, Number.POSITIVE_INFINITY, 70000]) {
    const one = await CheckpointWriter.create(join(root, "refused"), header("fp16"));
    await expect(one.writeTensor("embed", new Float32Array(300 * 80).fill(bad))).rejects.toThrow(
      `tensor 'embed': value ${bad} cannot be stored`,
    );
    await expect(one.finish()).rejects.toThrow("tensor 'layers.0.attn_norm' was not written");
    await one.abort();
  }
});

test("replaces a checkpoint only when told to, and never another folder", async () => {
  const dir = join(root, "replaced");
  await write(dir, "fp32");
  await expect(write(dir, "int8")).rejects.toThrow("is not empty; use --force");
  expect((await openCheckpoint(dir)).manifest.quantization.layers).toBe("fp32");
  await write(dir, "int8", true);
  expect((await openCheckpoint(dir)).manifest.quantization.layers).toBe("int8");

  const home = join(root, "home");
  await mkdir(home);
  await writeFile(join(home, "letter.txt"), "keep me");
  await expect(write(home, "fp32", true)).rejects.toThrow("holds no checkpoint");
  expect(await readFile(join(home, "letter.txt"), "utf8")).toBe("keep me");
  expect((await readdir(root)).filter((entry) => entry.startsWith("."))).toEqual([]);
});
