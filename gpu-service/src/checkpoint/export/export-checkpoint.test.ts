import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Architecture, type Manifest, tensorShapes } from "@fathom/shared";
import { expect, test } from "vitest";
import { CheckpointWriter } from "../checkpoint-writer.ts";
import { bytesOf } from "../float16.ts";
import { parseLlamaConfig } from "../huggingface/llama-config.ts";
import { SafetensorsFile } from "../huggingface/safetensors.ts";
import { huggingFaceTensors } from "../huggingface/tensor-names.ts";
import { importCheckpoint } from "../import-checkpoint.ts";
import { openCheckpoint } from "../open-checkpoint.ts";
import { readTensor } from "../read-tensor.ts";
import { gaussian } from "../testing/random.ts";
import { temporaryFolder } from "../testing/temporary-folder.ts";
import { weightPlan } from "../weight-plan.ts";
import { exportCheckpoint } from "./export-checkpoint.ts";

const fixtures = new URL("../../../../test/fixtures/tiny-llama/", import.meta.url).pathname;
const root = temporaryFolder();
const at = (name: string) => join(root, name);

const EXITS = { tied: [2, 4, 6, 8], untied: [2, 4, 6] };

async function expectSameTensors(dir: string, other: string): Promise<void> {
  const [a, b] = [await openCheckpoint(dir), await openCheckpoint(other)];
  expect(b.manifest.architecture).toEqual(a.manifest.architecture);
  expect(b.manifest.tokenizer).toEqual(a.manifest.tokenizer);
  for (const name of tensorShapes(a.manifest.architecture).keys()) {
    const [before, after] = [await readTensor(a, name), await readTensor(b, name)];
    expect(Buffer.compare(bytesOf(before), bytesOf(after)), name).toBe(0);
  }
}

test.each([
  ["tied", "fp32", undefined],
  ["untied", "fp32", undefined],
  ["tied", "fp32", 100_000],
  ["untied", "int4", undefined],
  ["tied", "int8", 300_000],
] as const)("a %s %s checkpoint comes back from its export bit for bit", async (variant, weights, shardBytes) => {
  const label = `${variant}-${weights}-${shardBytes}`;
  await importCheckpoint(join(fixtures, variant), at(label), { exits: EXITS[variant], weights });
  const seen: number[] = [];
  const { files, parameters } = await exportCheckpoint(at(label), at(`${label}-hf`), {
    ...(shardBytes === undefined ? {} : { shardBytes }),
    onProgress: (done, total) => seen.push(done / total),
  });
  expect(files.length > 1).toBe(shardBytes !== undefined);
  expect(seen.at(-1)).toBe(1);
  expect(seen).toEqual(seen.toSorted((a, b) => a - b));
  const again = await importCheckpoint(at(`${label}-hf`), at(`${label}-again`), {
    exits: EXITS[variant],
    weights: "fp32",
  });
  expect(huggingFaceTensors(again.architecture).reduce((sum, { length }) => sum + length, 0)).toBe(parameters);
  await expectSameTensors(at(label), at(`${label}-again`));
});

test("shards hold whole tensors, stay under the limit and are listed in the index", async () => {
  await importCheckpoint(join(fixtures, "tied"), at("s"), { weights: "fp32" });
  const limit = 400_000;
  const { files } = await exportCheckpoint(at("s"), at("s-hf"), { shardBytes: limit });
  const index = JSON.parse(await readFile(join(at("s-hf"), "model.safetensors.index.json"), "utf8"));
  const listed = new Map<string, string>(Object.entries(index.weight_map));
  let bytes = 0;
  for (const file of files) {
    expect(file).toMatch(/^model-0000\d-of-0000\d\.safetensors$/);
    const shard = await SafetensorsFile.open(join(at("s-hf"), file));
    const sizes = [...shard.tensors.values()].map((tensor) => tensor.bytes);
    for (const name of shard.tensors.keys()) expect(listed.get(name)).toBe(file);
    await shard.close();
    const size = sizes.reduce((sum, n) => sum + n, 0);
    expect(size).toBeLessThanOrEqual(limit);
    bytes += size;
  }
  expect(index.metadata.total_size).toBe(bytes);
  expect(new Set(listed.values())).toEqual(new Set(files));
});

test.each(["fp16", "bf16"] as const)("%s rounds every value to the nearest and halves the file", async (dtype) => {
  await importCheckpoint(join(fixtures, "untied"), at(dtype), { weights: "fp32" });
  await exportCheckpoint(at(dtype), at(`${dtype}-hf`), { dtype });
  await importCheckpoint(at(`${dtype}-hf`), at(`${dtype}-again`), { weights: "fp32" });
  const [a, b] = [await openCheckpoint(at(dtype)), await openCheckpoint(at(`${dtype}-again`))];
  // Half of the last place: 11 and 8 significant bits.
  const relative = dtype === "fp16" ? 2 ** -11 : 2 ** -8;
  const smallest = dtype === "fp16" ? 2 ** -25 : 2 ** -133;
  for (const name of tensorShapes(a.manifest.architecture).keys()) {
    const [before, after] = [await readTensor(a, name), await readTensor(b, name)];
    const worst = before.findIndex(
      (x, i) => Math.abs((after[i] ?? 0) - x) > Math.max(Math.abs(x) * relative, smallest),
    );
    expect(worst, name).toBe(-1);
  }
  const config = JSON.parse(await readFile(join(at(`${dtype}-hf`), "config.json"), "utf8"));
  expect(config.dtype).toBe(dtype === "fp16" ? "float16" : "bfloat16");
});

const CUSTOM: Architecture = {
  type: "llama",
  hidden_size: 32,
  intermediate_size: 48,
  layers: 2,
  heads: 4,
  kv_heads: 2,
  head_dim: 16,
  vocab_size: 40,
  rms_norm_eps: 1e-6,
  context_length: 512,
  rope: {
    theta: 500_000,
    llama3: { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 128 },
  },
  tied: false,
};

/** A checkpoint with random weights, a tokenizer and everything that a config can say. */
async function customCheckpoint(dir: string, scale = 1): Promise<Manifest> {
  const writer = await CheckpointWriter.create(dir, {
    name: "custom",
    architecture: CUSTOM,
    exits: [1, 2],
    quantization: weightPlan("fp32"),
    tokenizer: { bos_token_id: null, eos_token_ids: [7, 9] },
    provenance: { source: "here", created: "2026-01-01T00:00:00Z", license: "cc-by-nc-4.0", notes: "trained on air" },
  });
  let seed = 1;
  for (const [name, shape] of tensorShapes(CUSTOM)) {
    const length = shape.reduce((product, size) => product * size, 1);
    await writer.writeTensor(name, gaussian(length, seed++, scale));
  }
  await writer.writeFile("tokenizer.json", '{"version":"1.0"}');
  await writer.writeFile("tokenizer_config.json", '{"chat_template":"{{ messages }}"}');
  await writer.writeFile("README.md", "# ours\n");
  return writer.finish();
}

test("the configuration, the tokenizer and the licence survive", async () => {
  const manifest = await customCheckpoint(at("custom"));
  await exportCheckpoint(at("custom"), at("custom-hf"));
  expect((await readdir(at("custom-hf"))).toSorted()).toEqual([
    "README.md",
    "config.json",
    "generation_config.json",
    "model.safetensors",
    "tokenizer.json",
    "tokenizer_config.json",
  ]);
  const text = await readFile(join(at("custom-hf"), "config.json"), "utf8");
  const parsed = parseLlamaConfig("config.json", JSON.parse(text));
  expect(parsed).toEqual({ architecture: manifest.architecture, bosTokenId: null, eosTokenIds: [7, 9] });
  // transformers warns about whole numbers here.
  expect(text).toContain('"factor": 8.0,');
  expect(text).toContain('"rope_theta": 500000.0,');
  expect(await readFile(join(at("custom-hf"), "README.md"), "utf8")).toContain("Notes: trained on air");
  const again = await importCheckpoint(at("custom-hf"), at("custom-again"), { exits: [1, 2], weights: "fp32" });
  expect(again.provenance.license).toBe("cc-by-nc-4.0");
  for (const name of ["tokenizer.json", "tokenizer_config.json"]) {
    expect(await readFile(join(at("custom-again"), name))).toEqual(await readFile(join(at("custom"), name)));
  }
});

test("a value that the format cannot hold stops the export by the tensor's name and leaves nothing", async () => {
  await customCheckpoint(at("large"), 1e5);
  await expect(exportCheckpoint(at("large"), at("large-hf"), { dtype: "fp16" })).rejects.toThrow(
    /large: tensor 'embed': value -?\d+(\.\d+)? cannot be stored as fp16/,
  );
  expect((await readdir(root)).filter((name) => name.includes("large-hf"))).toEqual([]);
});

test("an interrupted export leaves nothing, and a folder in use is never touched", async () => {
  await importCheckpoint(join(fixtures, "tied"), at("base"), { weights: "int4" });
  const controller = new AbortController();
  const interrupted = exportCheckpoint(at("base"), at("base-hf"), {
    signal: controller.signal,
    onProgress: () => controller.abort(new Error("enough")),
  });
  await expect(interrupted).rejects.toThrow("enough");
  expect((await readdir(root)).filter((name) => name.includes("base-hf"))).toEqual([]);

  await mkdir(at("used"));
  await writeFile(join(at("used"), "letter.txt"), "keep me");
  await expect(exportCheckpoint(at("base"), at("used"))).rejects.toThrow("used: is not empty");
  expect(await readdir(at("used"))).toEqual(["letter.txt"]);
  await expect(exportCheckpoint(at("nowhere"), at("x"))).rejects.toThrow("there is no such folder");
});
