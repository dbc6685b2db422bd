import { execFile } from "node:child_process";
import { mkdirSync, truncateSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import type { Architecture } from "@fathom/shared";
import { expect, test } from "vitest";
import { huggingFaceTensors } from "./huggingface/tensor-names.ts";
import { temporaryFolder } from "./testing/temporary-folder.ts";
import { ggufName, tinyGguf } from "./testing/tiny-gguf.ts";
import { type GgufTestTensor, type GgufValue, writeGguf } from "./testing/write-gguf.ts";

const CLI = fileURLToPath(new URL("../cli/main.ts", import.meta.url));
/** What an import may take beside its largest tensor, bytes. */
const ALLOWANCE = 300e6;
const REPORT = "data:text/javascript,process.on('exit',()=>console.log(process.resourceUsage().maxRSS))";

const root = temporaryFolder();

/** A LLaMA of 190 M parameters: 762 MB in float32. */
const LARGE: Architecture = {
  type: "llama",
  hidden_size: 1024,
  intermediate_size: 2816,
  layers: 14,
  heads: 16,
  kv_heads: 4,
  head_dim: 64,
  vocab_size: 32_000,
  rms_norm_eps: 1e-6,
  context_length: 2048,
  rope: { theta: 10_000 },
  tied: true,
};

const tensors = huggingFaceTensors(LARGE);
const largest = 4 * Math.max(...tensors.map(({ length }) => length));
const whole = 4 * tensors.reduce((sum, { length }) => sum + length, 0);

/** A Hugging Face folder whose weights are zeros, which take no room on the disk. */
function sparseFolder(dir: string): string {
  mkdirSync(dir);
  const a = LARGE;
  const config = {
    model_type: "llama",
    hidden_size: a.hidden_size,
    intermediate_size: a.intermediate_size,
    num_hidden_layers: a.layers,
    num_attention_heads: a.heads,
    num_key_value_heads: a.kv_heads,
    vocab_size: a.vocab_size,
    tie_word_embeddings: a.tied,
  };
  writeFileSync(join(dir, "config.json"), JSON.stringify(config));
  let offset = 0;
  const entries = tensors.map(({ name, shape, length }) => {
    const from = offset;
    offset += 4 * length;
    return [name, { dtype: "F32", shape, data_offsets: [from, offset] }];
  });
  const json = Buffer.from(JSON.stringify(Object.fromEntries(entries)));
  const prefix = Buffer.alloc(8);
  prefix.writeBigUInt64LE(BigInt(json.length));
  const path = join(dir, "model.safetensors");
  writeFileSync(path, Buffer.concat([prefix, json]));
  truncateSync(path, 8 + json.length + offset);
  return dir;
}

/** The same model as a GGUF file in float32. */
function sparseGguf(path: string): string {
  const a = LARGE;
  const u32 = (value: number): GgufValue => ({ type: "u32", value });
  const metadata: Record<string, GgufValue> = {
    ...tinyGguf("tied").metadata,
    "llama.block_count": u32(a.layers),
    "llama.context_length": u32(a.context_length),
    "llama.embedding_length": u32(a.hidden_size),
    "llama.feed_forward_length": u32(a.intermediate_size),
    "llama.attention.head_count": u32(a.heads),
    "llama.attention.head_count_kv": u32(a.kv_heads),
    "llama.rope.dimension_count": u32(a.head_dim),
  };
  const named = tensors.map(({ name, shape, length }): [string, GgufTestTensor] => [
    ggufName(name),
    { shape, type: 0, bytes: 4 * length },
  ]);
  writeGguf(path, metadata, Object.fromEntries(named));
  return path;
}

test.each([
  ["a Hugging Face folder", "int4", () => sparseFolder(join(root, "a"))],
  ["a Hugging Face folder", "int8", () => sparseFolder(join(root, "b"))],
  ["a GGUF file", "fp16", () => sparseGguf(join(root, "c.gguf"))],
])("importing %s as %s takes at most its largest tensor and 300 MB", async (_, weights, source) => {
  const args = [
    "--import",
    REPORT,
    CLI,
    "import",
    source(),
    "--out",
    join(root, "out"),
    "--weights",
    weights,
    "--force",
  ];
  const { stdout } = await promisify(execFile)(process.execPath, args);
  const peak = 1024 * Number(stdout.trim().split("\n").at(-1));
  expect(peak).toBeGreaterThan(50e6);
  expect(peak).toBeLessThan(largest + ALLOWANCE);
  expect(largest + ALLOWANCE).toBeLessThan(0.6 * whole);
  console.log(`${(peak / 1e6).toFixed(0)} MB at most, for ${(whole / 1e6).toFixed(0)} MB of weights`);
});
