import { readFileSync } from "node:fs";
import { join } from "node:path";
import { type GgufTestTensor, type GgufValue, writeGguf } from "./write-gguf.ts";

const fixtures = new URL("../../../../test/fixtures/tiny-llama/", import.meta.url).pathname;

/** Path of the Hugging Face folder that the GGUF files below are made from. */
export function tinyFolder(variant: "tied" | "untied"): string {
  return join(fixtures, variant);
}

/** Metadata and tensors of a GGUF file, to be changed by a test before they are written. */
export interface TinyGguf {
  metadata: Record<string, GgufValue>;
  tensors: Record<string, GgufTestTensor>;
}

/** The tiny model as llama.cpp's converter writes it: its names, q and k rows interleaved, a byte-level tokenizer. */
export function tinyGguf(variant: "tied" | "untied"): TinyGguf {
  const config = JSON.parse(readFileSync(join(fixtures, variant, "config.json"), "utf8"));
  const tensors: Record<string, GgufTestTensor> = {};
  for (const [name, { shape, bytes }] of readTensors(join(fixtures, variant, "model.safetensors"))) {
    const heads = name.includes("q_proj") ? config.num_attention_heads : config.num_key_value_heads;
    const permuted = /[qk]_proj/.test(name) ? permute(bytes, shape, heads) : bytes;
    tensors[ggufName(name)] = { shape, type: 0, bytes: permuted };
  }
  const metadata: Record<string, GgufValue> = {
    "general.architecture": { type: "string", value: "llama" },
    "general.license": { type: "string", value: "apache-2.0" },
    "llama.block_count": { type: "u32", value: config.num_hidden_layers },
    "llama.context_length": { type: "u32", value: config.max_position_embeddings },
    "llama.embedding_length": { type: "u32", value: config.hidden_size },
    "llama.feed_forward_length": { type: "u32", value: config.intermediate_size },
    "llama.attention.head_count": { type: "u32", value: config.num_attention_heads },
    "llama.attention.head_count_kv": { type: "u32", value: config.num_key_value_heads },
    "llama.attention.layer_norm_rms_epsilon": { type: "f32", value: config.rms_norm_eps },
    "llama.rope.freq_base": { type: "f32", value: config.rope_parameters.rope_theta },
    "llama.rope.dimension_count": { type: "u32", value: config.head_dim },
    ...byteLevelTokenizer(),
  };
  return { metadata, tensors };
}

export function writeTinyGguf(path: string, { metadata, tensors }: TinyGguf): void {
  writeGguf(path, metadata, tensors);
}

/** Two control tokens, the printable ASCII characters, the space and two merges. */
function byteLevelTokenizer(): Record<string, GgufValue> {
  const characters = Array.from({ length: 94 }, (_, i) => String.fromCharCode(33 + i));
  const tokens = ["<pad>", "<s>", "</s>", ...characters, "\u0120", "he", "\u0120he"];
  return {
    "tokenizer.ggml.model": { type: "string", value: "gpt2" },
    "tokenizer.ggml.pre": { type: "string", value: "smollm" },
    "tokenizer.ggml.tokens": { type: "strings", value: tokens },
    "tokenizer.ggml.token_type": { type: "i32s", value: tokens.map((_, id) => (id < 3 ? 3 : 1)) },
    "tokenizer.ggml.merges": { type: "strings", value: ["h e", "\u0120 he"] },
    "tokenizer.ggml.bos_token_id": { type: "u32", value: 1 },
    "tokenizer.ggml.eos_token_id": { type: "u32", value: 2 },
  };
}

function* readTensors(path: string): Generator<[name: string, tensor: { shape: number[]; bytes: Uint8Array }]> {
  const file = readFileSync(path);
  const start = 8 + Number(file.readBigUInt64LE());
  const header: Record<string, { shape: number[]; data_offsets: [number, number] }> = JSON.parse(
    file.toString("utf8", 8, start),
  );
  for (const [name, entry] of Object.entries(header)) {
    if (name === "__metadata__") continue;
    const [begin, end] = entry.data_offsets;
    yield [name, { shape: entry.shape, bytes: file.subarray(start + begin, start + end) }];
  }
}

/** `reshape(heads, 2, D/2, K).swapaxes(1, 2)`, as convert_hf_to_gguf.py has it. */
function permute(bytes: Uint8Array, shape: number[], heads: number): Uint8Array {
  const [rows = 0, columns = 0] = shape;
  const rowBytes = columns * 4;
  const half = rows / heads / 2;
  const out = new Uint8Array(bytes.length);
  let to = 0;
  for (let head = 0; head < heads; head++) {
    for (let i = 0; i < half; i++) {
      for (let j = 0; j < 2; j++) {
        const from = (head * 2 + j) * half + i;
        out.set(bytes.subarray(from * rowBytes, (from + 1) * rowBytes), rowBytes * to++);
      }
    }
  }
  return out;
}

/** llama.cpp's name of a Hugging Face parameter. */
export function ggufName(name: string): string {
  const renamed = name
    .replace("model.embed_tokens", "token_embd")
    .replace("lm_head", "output")
    .replace("model.norm", "output_norm")
    .replace("model.layers.", "blk.")
    .replace("input_layernorm", "attn_norm")
    .replace("post_attention_layernorm", "ffn_norm")
    .replace("o_proj", "output_proj")
    .replace(/self_attn\.(\w+)_proj/, "attn_$1")
    .replace(/mlp\.(\w+)_proj/, "ffn_$1");
  return renamed;
}
