import { readFileSync, writeFileSync } from "node:fs";
import { mkdir, readdir, readFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { CheckpointError } from "../checkpoint-error.ts";
import { bytesOf } from "../float16.ts";
import { importCheckpoint } from "../import-checkpoint.ts";
import { openCheckpoint } from "../open-checkpoint.ts";
import { temporaryFolder } from "../testing/temporary-folder.ts";
import { type TinyGguf, tinyFolder, tinyGguf, writeTinyGguf } from "../testing/tiny-gguf.ts";
import { openGguf } from "./open-gguf.ts";

const root = temporaryFolder();

let files = 0;
function written(model: TinyGguf): string {
  const path = join(root, `Tiny-${files++}.gguf`);
  writeTinyGguf(path, model);
  return path;
}

describe.each(["tied", "untied"] as const)("a %s model", (variant) => {
  test("imports to the same checkpoint as from its Hugging Face folder", async () => {
    const [fromFolder, fromGguf] = [join(root, `folder-${variant}`), join(root, `gguf-${variant}`)];
    const folder = await importCheckpoint(tinyFolder(variant), fromFolder, { weights: "int4" });
    const gguf = await importCheckpoint(written(tinyGguf(variant)), fromGguf, { weights: "int4" });
    expect(gguf.architecture).toEqual(folder.architecture);
    expect(gguf.exits).toEqual(folder.exits);
    expect(gguf.tensors).toEqual(folder.tensors);
    const weights = ({ files: all }: typeof gguf) => all.filter(({ path }) => path.startsWith("weights/"));
    expect(weights(gguf)).toEqual(weights(folder));
    expect(gguf.tokenizer).toEqual({ bos_token_id: 1, eos_token_ids: [2] });
    expect(gguf.provenance.license).toBe("apache-2.0");
    expect(gguf.name).toMatch(/^Tiny-\d+$/);
    expect((await openCheckpoint(fromGguf)).manifest).toEqual(gguf);
  });
});

test("a repeated import gives the same weights, and the tokenizer's files are listed", async () => {
  const path = written(tinyGguf("tied"));
  const [a, b] = [
    await importCheckpoint(path, join(root, "a"), { weights: "int8" }),
    await importCheckpoint(path, join(root, "b"), { weights: "int8" }),
  ];
  expect(a.tensors).toEqual(b.tensors);
  expect(a.files.filter(({ path: file }) => file !== "README.md")).toEqual(
    b.files.filter(({ path: file }) => file !== "README.md"),
  );
  expect(a.files.map(({ path: file }) => file)).toContain("tokenizer.json");
  expect(JSON.parse(await readFile(join(root, "a", "tokenizer_config.json"), "utf8"))).toMatchObject({
    bos_token: "<s>",
    eos_token: "</s>",
  });
});

test("rows of any supported format are decoded on the way", async () => {
  const model = tinyGguf("untied");
  const embedding = model.tensors["token_embd.weight"];
  if (!(embedding?.bytes instanceof Uint8Array)) throw new Error("the model has an embedding");
  const values = new Float32Array(Uint8Array.from(embedding.bytes).buffer);
  model.tensors["token_embd.weight"] = { ...embedding, type: 1, bytes: bytesOf(Float16Array.from(values)) };
  const source = await openGguf(written(model));
  const found: number[] = [];
  for await (const chunk of source.tensor("embed")) found.push(...chunk);
  await source.close();
  expect(found).toEqual([...Float16Array.from(values)]);
});

describe("llama3 RoPE scaling is recovered from its factors", () => {
  const factors = (theta: number, factor: number, half: number): Float32Array =>
    Float32Array.from({ length: half }, (_, i) => {
      // As convert_hf_to_gguf.py computes them, for Llama 3's parameters.
      const wavelength = 2 * Math.PI * theta ** (i / half);
      if (wavelength < 8192 / 4) return 1;
      if (wavelength > 8192) return factor;
      const smooth = (8192 / wavelength - 1) / 3;
      return 1 / ((1 - smooth) / factor + smooth);
    });
  const withFactors = (values: Float32Array): string => {
    const model = tinyGguf("tied");
    model.metadata["llama.rope.freq_base"] = { type: "f32", value: 500000 };
    model.tensors["rope_freqs.weight"] = { shape: [values.length], type: 0, bytes: bytesOf(values) };
    return written(model);
  };

  test.each([8, 32])("factor %d", async (factor) => {
    const source = await openGguf(withFactors(factors(500000, factor, 8)));
    await source.close();
    expect(source.architecture.rope).toEqual({
      theta: 500000,
      llama3: { factor, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 },
    });
  });

  test("other factors are refused", async () => {
    const odd = factors(500000, 8, 8).map((value, i) => (i === 4 ? value * 1.1 : value));
    await expect(openGguf(withFactors(odd))).rejects.toThrow("other than llama3 scaling's");
  });
});

describe("what cannot be served is refused by name, before anything is written", () => {
  test.each<[string, (model: TinyGguf) => void, string]>([
    [
      "another architecture",
      ({ metadata: m }) => (m["general.architecture"] = { type: "string", value: "gemma" }),
      "the architecture is 'gemma'",
    ],
    ["no architecture", ({ metadata: m }) => delete m["general.architecture"], "the architecture is 'undefined'"],
    ["experts", ({ metadata: m }) => (m["llama.expert_count"] = { type: "u32", value: 8 }), "mixtures of experts"],
    ["a part of several", ({ metadata: m }) => (m["split.count"] = { type: "u32", value: 3 }), "is one of 3 parts"],
    [
      "RoPE scaling",
      ({ metadata: m }) => (m["llama.rope.scaling.type"] = { type: "string", value: "yarn" }),
      "RoPE scaling of type 'yarn'",
    ],
    [
      "partial RoPE",
      ({ metadata: m }) => (m["llama.rope.dimension_count"] = { type: "u32", value: 8 }),
      "partial RoPE",
    ],
    [
      "values of another length",
      ({ metadata: m }) => (m["llama.attention.value_length"] = { type: "u32", value: 8 }),
      "keys and values of different length",
    ],
    [
      "heads that do not divide",
      ({ metadata: m }) => (m["llama.attention.head_count_kv"] = { type: "u32", value: 4 }),
      "4 K/V heads do not divide the 6 heads",
    ],
    ["a missing field", ({ metadata: m }) => delete m["llama.block_count"], "metadata 'llama.block_count'"],
    [
      "a field of the wrong type",
      ({ metadata: m }) => (m["llama.block_count"] = { type: "string", value: "8" }),
      "metadata 'llama.block_count'",
    ],
    [
      "a missing tensor",
      ({ tensors: t }) => delete t["blk.3.ffn_up.weight"],
      "tensor 'blk.3.ffn_up.weight' is missing",
    ],
    ["a missing embedding", ({ tensors: t }) => delete t["token_embd.weight"], "tensor 'token_embd.weight' is missing"],
    [
      "a bias",
      ({ tensors: t }) => (t["blk.0.attn_q.bias"] = { shape: [2], type: 0, bytes: new Uint8Array(8) }),
      "tensor 'blk.0.attn_q.bias' is not supported",
    ],
    [
      "a wrong shape",
      ({ tensors: t }) => (t["output_norm.weight"] = { shape: [4], type: 0, bytes: new Uint8Array(16) }),
      "tensor 'output_norm.weight' has shape [4]",
    ],
    [
      "an unsupported type",
      ({ tensors: t }) => (t["output_norm.weight"] = { shape: [96], type: 10, bytes: new Uint8Array(96) }),
      "tensor 'output_norm.weight' has type Q2_K; supported are F32",
    ],
    [
      "broken blocks",
      ({ tensors: t }) => (t["blk.0.ffn_down.weight"] = { shape: [96, 160], type: 12, bytes: new Uint8Array(9999) }),
      "rows that are no whole Q4_K blocks",
    ],
    [
      "too many tokens",
      ({ metadata: m }) =>
        (m["tokenizer.ggml.tokens"] = { type: "strings", value: Array.from({ length: 321 }, (_, i) => `t${i}`) }),
      "has 321 tokens, but embeddings for 320",
    ],
  ])("%s", async (_, spoil, reason) => {
    const model = tinyGguf("tied");
    spoil(model);
    const path = written(model);
    const parent = join(root, `refused-${files}`);
    await mkdir(parent);
    const error = await importCheckpoint(path, join(parent, "out")).catch((e: unknown) => e);
    expect(error).toBeInstanceOf(CheckpointError);
    expect(error).toMatchObject({ file: path, message: expect.stringContaining(reason) });
    expect(await readdir(parent)).toEqual([]);
  });

  test("a truncated file, wherever it is cut", async () => {
    const whole = readFileSync(written(tinyGguf("untied")));
    const path = join(root, "cut.gguf");
    await fc.assert(
      fc.asyncProperty(fc.integer({ min: 0, max: whole.length - 64 }), async (length) => {
        writeFileSync(path, whole.subarray(0, length));
        const error = await openGguf(path).catch((reason: unknown) => reason);
        expect(error).toBeInstanceOf(CheckpointError);
      }),
      { numRuns: 40 },
    );
    writeFileSync(path, whole.subarray(0, whole.length - 64));
    await expect(openGguf(path)).rejects.toThrow(`${path}: is truncated: tensor`);
  });

  test("what is no GGUF file", async () => {
    const path = join(root, "text.gguf");
    writeFileSync(path, "This is not a model.");
    await expect(openGguf(path)).rejects.toThrow(`${path}: is not a valid GGUF file`);
    await expect(openGguf(join(root, "none.gguf"))).rejects.toThrow("none.gguf: cannot be read");
  });
});
