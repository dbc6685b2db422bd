import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import { type DepthProfile, tensorShapes, type WeightFormat } from "@fathom/shared";
import { beforeAll, expect, test } from "vitest";
import { CheckpointWriter } from "./checkpoint-writer.ts";
import { importCheckpoint } from "./import-checkpoint.ts";
import { unchangedMatrices } from "./kept-tensors.ts";
import { openCheckpoint } from "./open-checkpoint.ts";
import { readTensor, readTensorBytes, readTensorChunks } from "./read-tensor.ts";
import { requantize } from "./requantize.ts";
import { temporaryFolder } from "./testing/temporary-folder.ts";
import { weightPlan } from "./weight-plan.ts";

const source = new URL("../../../test/fixtures/tiny-llama/untied", import.meta.url).pathname;
const root = temporaryFolder();
const at = (name: string) => join(root, name);
const exits = [2, 4, 6];

const imported = (name: string, weights: WeightFormat) => importCheckpoint(source, at(name), { exits, weights });

beforeAll(async () => {
  await imported("fp32", "fp32");
});

test.each(["int4", "int8", "fp16", "fp32"] as const)("fp32 to %s equals importing as it", async (weights) => {
  await imported(`direct-${weights}`, weights);
  const seen: number[] = [];
  await requantize(await openCheckpoint(at("fp32")), at(`again-${weights}`), weights, {
    onProgress: (done, total) => seen.push(done / total),
  });
  expect(seen.at(-1)).toBe(1);
  const [a, b] = [await openCheckpoint(at(`direct-${weights}`)), await openCheckpoint(at(`again-${weights}`))];
  expect(b.manifest.quantization).toEqual(a.manifest.quantization);
  for (const name of tensorShapes(a.manifest.architecture).keys()) {
    expect(await readTensorBytes(b, name), name).toEqual(await readTensorBytes(a, name));
  }
  const card = await readFile(join(at(`again-${weights}`), "README.md"), "utf8");
  expect(card).toContain(`Weights: layers ${weights},`);
});

test("a quantised checkpoint unpacks to the very values that it stands for", async () => {
  await imported("packed", "int4");
  await requantize(await openCheckpoint(at("packed")), at("unpacked"), "fp32");
  const [packed, unpacked] = [await openCheckpoint(at("packed")), await openCheckpoint(at("unpacked"))];
  for (const name of tensorShapes(packed.manifest.architecture).keys()) {
    expect(await readTensor(unpacked, name), name).toEqual(await readTensor(packed, name));
  }
  expect(unpacked.manifest.provenance.notes).toBe("re-encoded from int4 to fp32");
});

test("matrices that still have a checkpoint's values keep its bytes, the others are encoded as asked", async () => {
  await imported("keepers", "int4");
  const kept = await openCheckpoint(at("keepers"));
  const changed = "layers.1.mlp.down";
  const { name, architecture, exits: own, tokenizer, provenance } = kept.manifest;
  const header = { name, architecture, exits: own, tokenizer, provenance, quantization: weightPlan("fp32") };
  const writer = await CheckpointWriter.create(at("tuned"), header);
  for (const tensor of tensorShapes(architecture).keys()) {
    const values = await readTensor(kept, tensor);
    await writer.writeTensor(tensor, tensor === changed ? values.map((value) => value * 1.01 + 1e-4) : values);
  }
  await writer.finish();

  const tuned = await openCheckpoint(at("tuned"));
  const keep = await unchangedMatrices(tuned, kept, weightPlan("int4"));
  expect(keep.names).not.toContain(changed);
  await requantize(tuned, at("tuned-int4"), "int4", { keep, offsets: new Set(["layers.0.attn.o"]) });
  const result = await openCheckpoint(at("tuned-int4"));
  const matrices = [...tensorShapes(architecture)].filter(
    ([tensor, shape]) => shape.length === 2 && tensor !== changed,
  );
  for (const [tensor] of matrices) {
    expect(await readTensorBytes(result, tensor), tensor).toEqual(await readTensorBytes(kept, tensor));
  }
  const layers = matrices.map(([tensor]) => tensor).filter((tensor) => tensor.startsWith("layers."));
  expect(result.manifest.quantization.offsets).toEqual(layers);
  const [before, after] = [await readTensor(tuned, changed), await readTensor(result, changed)];
  const error = before.reduce((sum, value, i) => sum + (value - (after[i] ?? 0)) ** 2, 0);
  expect(error).toBeGreaterThan(0);
  expect(error).toBeLessThan(0.01 * before.reduce((sum, value) => sum + value ** 2, 0));
});

test("another format keeps nothing", async () => {
  const checkpoint = await openCheckpoint(at("fp32"));
  const keep = await unchangedMatrices(checkpoint, checkpoint, weightPlan("int8"));
  expect(keep.names).toEqual(new Set());
  await requantize(checkpoint, at("kept-none"), "int8", { keep });
  expect((await openCheckpoint(at("kept-none"))).manifest.tensors["layers.0.attn.o"]?.format).toBe("int8");
});

/** A matrix of more rows than a chunk holds, in every format. */
test.each(["fp32", "fp16", "int8", "int4"] as const)("chunks of %s rows join to the whole tensor", async (weights) => {
  const architecture = {
    type: "llama" as const,
    hidden_size: 1024,
    intermediate_size: 32,
    layers: 1,
    heads: 1,
    kv_heads: 1,
    head_dim: 2,
    vocab_size: 2500,
    rms_norm_eps: 1e-5,
    context_length: 8,
    rope: { theta: 10000 },
    tied: true,
  };
  const quantization = { ...weightPlan(weights), embedding: weights };
  const writer = await CheckpointWriter.create(at(`rows-${weights}`), {
    name: "rows",
    architecture,
    exits: [1],
    quantization,
    tokenizer: { bos_token_id: null, eos_token_ids: [] },
    provenance: { source: "here", created: "2026-01-01T00:00:00Z" },
  });
  for (const [name, shape] of tensorShapes(architecture)) {
    const length = shape.reduce((product, size) => product * size, 1);
    await writer.writeTensor(
      name,
      Float32Array.from({ length }, (_, i) => Math.sin(i)),
    );
  }
  await writer.finish();
  const checkpoint = await openCheckpoint(at(`rows-${weights}`));
  const whole = await readTensor(checkpoint, "embed");
  let done = 0;
  let chunks = 0;
  for await (const chunk of readTensorChunks(checkpoint, "embed")) {
    expect(Buffer.compare(Buffer.from(chunk.buffer), Buffer.from(whole.slice(done, done + chunk.length).buffer))).toBe(
      0,
    );
    done += chunk.length;
    chunks++;
  }
  expect(done).toBe(whole.length);
  expect(chunks).toBe(3);
});

test("profile, provenance and files are kept, thresholds are not; other exits drop what belongs to no exit", async () => {
  const profile: DepthProfile = {
    version: 3,
    measured_on: "two cores",
    exits: exits.map((depth) => ({ depth, ms_per_token: depth, agreement: depth / 6 })),
  };
  const base = await openCheckpoint(at("fp32"));
  const { name, architecture, tokenizer, quantization } = base.manifest;
  const writer = await CheckpointWriter.create(at("facts"), {
    name,
    architecture,
    exits,
    tokenizer,
    quantization,
    thresholds: { 2: 0.9, 4: 0.8 },
    profile,
    provenance: { source: "there", created: "2026-01-01T00:00:00Z", license: "mit", notes: "trained" },
  });
  for (const tensor of tensorShapes(architecture).keys()) {
    await writer.writeTensor(tensor, await readTensor(base, tensor));
  }
  await writer.writeFile("tokenizer.json", "{}");
  await writer.writeFile("README.md", "# By hand\n");
  await writer.writeFile("docs/about.md", "about\n");
  await writer.finish();

  const checkpoint = await openCheckpoint(at("facts"));
  const kept = await requantize(checkpoint, at("kept"), "int8");
  expect(kept).toMatchObject({ name, exits, profile, tokenizer });
  expect(kept.thresholds).toBeUndefined();
  expect(kept.provenance).toMatchObject({
    source: "there",
    license: "mit",
    notes:
      "trained; re-encoded from fp32 to int8; the depth profile was measured before; " +
      "thresholds were dropped, calibrate anew",
  });
  for (const file of ["tokenizer.json", "README.md", "docs/about.md"]) {
    expect(await readFile(join(at("kept"), file))).toEqual(await readFile(join(at("facts"), file)));
  }

  const fewer = await requantize(checkpoint, at("fewer"), "int4", { exits: [3, 4, 6] });
  expect(fewer.exits).toEqual([3, 4, 6]);
  expect(fewer.profile?.exits.map(({ depth }) => depth)).toEqual([4, 6]);
  await expect(requantize(checkpoint, at("bad"), "int4", { exits: [2, 4] })).rejects.toThrow("must be the full depth");
});

test("an interruption leaves nothing behind", async () => {
  const controller = new AbortController();
  const interrupted = requantize(await openCheckpoint(at("fp32")), at("stopped"), "int4", {
    signal: controller.signal,
    onProgress: () => controller.abort(new Error("enough")),
  });
  await expect(interrupted).rejects.toThrow("enough");
  expect((await readdir(root)).filter((name) => name.includes("stopped"))).toEqual([]);
});
