import { readFileSync } from "node:fs";
import { cp, mkdir, readdir, readFile, rm, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { type Architecture, tensorShapes } from "@fathom/shared";
import { describe, expect, test } from "vitest";
import { bytesOf } from "../float16.ts";
import { importCheckpoint } from "../import-checkpoint.ts";
import { openCheckpoint } from "../open-checkpoint.ts";
import { readTensor } from "../read-tensor.ts";
import { gaussian } from "../testing/random.ts";
import { temporaryFolder } from "../testing/temporary-folder.ts";
import { type TestTensor, writeSafetensors } from "../testing/write-safetensors.ts";
import { sourceTensors } from "./tensor-names.ts";

const fixtures = new URL("../../../../test/fixtures/tiny-llama/", import.meta.url).pathname;
const root = temporaryFolder();

let copies = 0;
async function copyOf(variant: "tied" | "untied"): Promise<string> {
  const dir = join(root, `source-${copies++}`);
  await cp(join(fixtures, variant), dir, { recursive: true });
  return dir;
}

async function editJson(path: string, edit: (json: Record<string, unknown>) => object): Promise<void> {
  await writeFile(path, JSON.stringify(edit(JSON.parse(await readFile(path, "utf8")))));
}

/** Reads a tensor straight from a safetensors file, on its own terms. */
function rawTensor(path: string, name: string): Float32Array {
  const bytes = readFileSync(path);
  const headerBytes = Number(bytes.readBigUInt64LE());
  const { data_offsets } = JSON.parse(bytes.toString("utf8", 8, 8 + headerBytes))[name];
  const [begin, end] = data_offsets.map((offset: number) => offset + 8 + headerBytes);
  return new Float32Array(Uint8Array.from(bytes.subarray(begin, end)).buffer);
}

describe.each(["tied", "untied"] as const)("a %s model", (variant) => {
  test("keeps every weight, with q, k, v and gate, up packed", async () => {
    const out = join(root, `whole-${variant}`);
    const exits = variant === "tied" ? [2, 8] : [3, 6];
    const manifest = await importCheckpoint(join(fixtures, variant), out, { exits, weights: "fp32" });
    expect(manifest.architecture.tied).toBe(variant === "tied");
    const checkpoint = await openCheckpoint(out);
    for (const name of tensorShapes(manifest.architecture).keys()) {
      const parts = sourceTensors(manifest.architecture, name).map(([source]) => source);
      const expected = parts.map((part) => rawTensor(join(fixtures, variant, "model.safetensors"), part));
      const found = await readTensor(checkpoint, name);
      expect(Buffer.compare(bytesOf(found), Buffer.concat(expected.map(bytesOf))), name).toBe(0);
    }
  });
});

test("token ids come from config.json and generation_config.json, and a tokenizer is optional", async () => {
  const dir = await copyOf("tied");
  await editJson(join(dir, "generation_config.json"), (json) => ({ ...json, eos_token_id: [9, 2] }));
  const manifest = await importCheckpoint(dir, join(root, "ids"), { weights: "fp32" });
  expect(manifest.tokenizer).toEqual({ bos_token_id: 1, eos_token_ids: [9, 2] });
  expect(manifest.files.map(({ path }) => path)).toEqual(["weights/00001.bin", "README.md"]);
  expect(manifest.exits).toEqual([2, 4, 6, 8]);
});

test("a tokenizer is copied, and a chat template in its own file moves into tokenizer_config.json", async () => {
  const dir = await copyOf("tied");
  await writeFile(join(dir, "tokenizer.json"), '{"version":"1.0"}');
  await writeFile(join(dir, "tokenizer_config.json"), '{"bos_token":"<s>"}');
  await writeFile(join(dir, "chat_template.jinja"), "{{ messages }}");
  await writeFile(join(dir, "README.md"), "---\nlanguage: en\nlicense: apache-2.0\n---\n# Tiny\n");
  const out = join(root, "tokenizer");
  const manifest = await importCheckpoint(dir, out, { weights: "int8", name: "tiny model!" });
  expect(await readFile(join(out, "tokenizer.json"), "utf8")).toBe('{"version":"1.0"}');
  const config = JSON.parse(await readFile(join(out, "tokenizer_config.json"), "utf8"));
  expect(config).toEqual({ bos_token: "<s>", chat_template: "{{ messages }}" });
  expect(manifest.provenance.license).toBe("apache-2.0");
  expect(manifest.name).toBe("tiny-model");
});

/** A folder with random bf16 weights in two shards. */
async function shardedFolder(): Promise<{ dir: string; tensors: Record<string, TestTensor> }> {
  const dir = join(root, `sharded-${copies++}`);
  await mkdir(dir);
  const architecture: Architecture = {
    type: "llama",
    hidden_size: 48,
    intermediate_size: 64,
    layers: 2,
    heads: 4,
    kv_heads: 2,
    head_dim: 8,
    vocab_size: 50,
    rms_norm_eps: 1e-6,
    context_length: 2048,
    rope: { theta: 10000 },
    tied: false,
  };
  // head_dim is not hidden_size / heads here, and everything that has a default is left out.
  const config = {
    model_type: "llama",
    hidden_size: 48,
    intermediate_size: 64,
    num_hidden_layers: 2,
    num_attention_heads: 4,
    num_key_value_heads: 2,
    head_dim: 8,
    vocab_size: 50,
  };
  await writeFile(join(dir, "config.json"), JSON.stringify(config));
  const tensors: Record<string, TestTensor> = {};
  for (const name of tensorShapes(architecture).keys()) {
    for (const [source, shape] of sourceTensors(architecture, name)) {
      const count = shape.reduce((a, b) => a * b, 1);
      const values = new Uint32Array(gaussian(count, copies + count).buffer);
      tensors[source] = { dtype: "BF16", shape, bytes: bytesOf(Uint16Array.from(values, (bits) => bits >>> 16)) };
    }
  }
  const names = Object.keys(tensors);
  const files = ["model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"];
  const weight_map: Record<string, string> = {};
  for (const [i, file] of files.entries()) {
    // Interleaved, so that packed tensors come from both files.
    const own = names.filter((_, at) => at % 2 === i);
    for (const name of own) weight_map[name] = file;
    writeSafetensors(join(dir, file), Object.fromEntries(own.map((name) => [name, tensors[name] as TestTensor])));
  }
  await writeFile(join(dir, "model.safetensors.index.json"), JSON.stringify({ metadata: {}, weight_map }));
  return { dir, tensors };
}

test("a sharded bf16 model with an untied head and its own head_dim", async () => {
  const { dir, tensors } = await shardedFolder();
  const out = join(root, "sharded-out");
  const manifest = await importCheckpoint(dir, out, { weights: "fp32" });
  expect(manifest.architecture).toMatchObject({ head_dim: 8, tied: false, rms_norm_eps: 1e-6, context_length: 2048 });
  expect(manifest.exits).toEqual([1, 2]);
  const checkpoint = await openCheckpoint(out);
  for (const name of tensorShapes(manifest.architecture).keys()) {
    const parts = sourceTensors(manifest.architecture, name).map(
      ([source]) => tensors[source]?.bytes ?? new Uint8Array(),
    );
    const found = new Uint32Array((await readTensor(checkpoint, name)).buffer);
    const upper = Uint16Array.from(found, (bits) => bits >>> 16);
    expect(found.every((bits) => (bits & 0xffff) === 0)).toBe(true);
    expect(Buffer.compare(bytesOf(upper), Buffer.concat(parts)), name).toBe(0);
  }
});

describe("an incomplete or hostile folder is refused before anything is written", () => {
  const refused = async (dir: string, reason: string): Promise<void> => {
    const parent = join(root, `refused-${copies++}`);
    await mkdir(parent);
    await expect(importCheckpoint(dir, join(parent, "out"))).rejects.toThrow(reason);
    expect(await readdir(parent)).toEqual([]);
  };

  test("no such source", () => refused(join(root, "none"), "there is no such file or folder"));
  test("neither folder nor GGUF", () => refused(join(fixtures, "tied/config.json"), "neither a Hugging Face folder"));

  test("no config", async () => {
    const dir = await copyOf("tied");
    await rm(join(dir, "config.json"));
    await refused(dir, `${join(dir, "config.json")}: is missing`);
  });

  test("a malformed config", async () => {
    const dir = await copyOf("tied");
    await writeFile(join(dir, "config.json"), "{");
    await refused(dir, `${join(dir, "config.json")}: is malformed: not JSON`);
  });

  test("weights in another format", async () => {
    const dir = await copyOf("tied");
    await rm(join(dir, "model.safetensors"));
    await rm(join(dir, "soft-gradients.safetensors"));
    await writeFile(join(dir, "pytorch_model.bin"), "");
    await refused(dir, "model.safetensors: is missing; the folder holds pytorch_model.bin instead");
  });

  test("a shape that the config does not have", async () => {
    const dir = await copyOf("tied");
    await editJson(join(dir, "config.json"), (json) => ({ ...json, intermediate_size: 161 }));
    await refused(dir, "tensor 'model.layers.0.mlp.gate_proj.weight' has shape [160,96]");
  });

  test("a layer too few", async () => {
    const dir = await copyOf("tied");
    await editJson(join(dir, "config.json"), (json) => ({ ...json, num_hidden_layers: 9 }));
    await refused(dir, "tensor 'model.layers.8.input_layernorm.weight' is missing");
  });

  test("a bias that the config does not tell of", async () => {
    const { dir, tensors } = await shardedFolder();
    const bias: TestTensor = { dtype: "BF16", shape: [2], bytes: new Uint8Array(4) };
    writeSafetensors(join(dir, "model.safetensors"), { ...tensors, "model.layers.0.self_attn.q_proj.bias": bias });
    await rm(join(dir, "model.safetensors.index.json"));
    await refused(dir, "tensor 'model.layers.0.self_attn.q_proj.bias' is not supported");
  });

  test("a shard that the index names and the folder lacks", async () => {
    const { dir } = await shardedFolder();
    await rm(join(dir, "model-00002-of-00002.safetensors"));
    await refused(dir, "model-00002-of-00002.safetensors: cannot be read");
  });

  test.each(["../secret.safetensors", "/etc/passwd", "a/b.safetensors", "weights.bin"])(
    "an index that names %s",
    async (file) => {
      const { dir } = await shardedFolder();
      await editJson(join(dir, "model.safetensors.index.json"), () => ({ weight_map: { "model.norm.weight": file } }));
      await refused(dir, `'${file}' is not the name of a safetensors file`);
    },
  );

  test("an index that lists a tensor where it is not", async () => {
    const { dir } = await shardedFolder();
    const path = join(dir, "model.safetensors.index.json");
    await editJson(path, () => ({ weight_map: { "model.nothing": "model-00001-of-00002.safetensors" } }));
    await refused(dir, "tensor 'model.nothing' is missing, but model.safetensors.index.json lists it here");
  });

  test("exits that the model does not have", async () => {
    const out = join(root, "exits");
    const source = join(fixtures, "tied");
    await expect(importCheckpoint(source, out, { exits: [2, 4] })).rejects.toThrow("must be the full depth, 8");
    await expect(importCheckpoint(source, out, { exits: [4, 2, 8] })).rejects.toThrow("ascending");
    await expect(importCheckpoint(source, out, { exits: [] })).rejects.toThrow("exits");
  });
});

test("an aborted import leaves nothing behind", async () => {
  const parent = join(root, "aborted");
  await mkdir(parent);
  const controller = new AbortController();
  const onProgress = (done: number, total: number) => {
    if (done > total / 2) controller.abort();
  };
  const { signal } = controller;
  await expect(
    importCheckpoint(join(fixtures, "tied"), join(parent, "out"), { signal, onProgress }),
  ).rejects.toMatchObject({ name: "AbortError" });
  expect(await readdir(parent)).toEqual([]);
});

test("a value that cannot be stored names its tensor", async () => {
  const { dir, tensors } = await shardedFolder();
  for (const tensor of Object.values(tensors)) new Uint16Array(tensor.bytes.buffer)[3] = 0x7fc0;
  writeSafetensors(join(dir, "model.safetensors"), tensors);
  await rm(join(dir, "model.safetensors.index.json"));
  await expect(importCheckpoint(dir, join(root, "nan"), { weights: "int4" })).rejects.toThrow(
    `${dir}: tensor 'embed': value NaN cannot be stored`,
  );
});
