import { basename } from "node:path";
import { type Architecture, tensorShapes } from "@fathom/shared";
import { CheckpointError } from "../checkpoint-error.ts";
import { concatenate, type ModelSource } from "../model-source.ts";
import { GgufFile } from "./gguf-file.ts";
import { readLlamaMetadata } from "./llama-metadata.ts";
import { rebuildTokenizer } from "./rebuild-tokenizer.ts";
import { ROPE_FACTORS_TENSOR } from "./rope-factors.ts";

/**
 * Opens a GGUF file of a LLaMA model; the tokenizer is rebuilt from its metadata.
 * @throws CheckpointError when it is not a LLaMA model, incomplete or malformed.
 */
export async function openGguf(path: string): Promise<ModelSource> {
  const file = await GgufFile.open(path);
  try {
    const architecture = await readLlamaMetadata(file);
    requireTensors(file, architecture);
    const tokenizer = rebuildTokenizer(path, file.metadata, architecture.vocab_size);
    return {
      architecture,
      tokenizer: { bos_token_id: tokenizer.bosTokenId, eos_token_ids: tokenizer.eosTokenIds },
      files: new Map([
        ["tokenizer.json", JSON.stringify(tokenizer.json)],
        ["tokenizer_config.json", `${JSON.stringify(tokenizer.config, null, 2)}\n`],
      ]),
      name: basename(path, ".gguf"),
      license: text(file.metadata["general.license"]),
      tensor: (name) => readPacked(file, architecture, name),
      close: () => file.close(),
    };
  } catch (error) {
    await file.close();
    throw error;
  }
}

interface SourceTensor {
  name: string;
  shape: number[];
  /** Rows are interleaved per head of this dimension and have to be put into rotate-half order. */
  interleaved?: number;
}

function sourceTensors(a: Architecture, name: string): SourceTensor[] {
  const { hidden_size: h, intermediate_size: m, head_dim } = a;
  const q = a.heads * head_dim;
  const kv = a.kv_heads * head_dim;
  const [, layer, part] = /^layers\.(\d+)\.(.+)$/.exec(name) ?? [];
  const prefix = `blk.${layer}`;
  switch (part ?? name) {
    case "embed":
      return [{ name: "token_embd.weight", shape: [a.vocab_size, h] }];
    case "attn_norm":
      return [{ name: `${prefix}.attn_norm.weight`, shape: [h] }];
    case "attn.qkv":
      return [
        { name: `${prefix}.attn_q.weight`, shape: [q, h], interleaved: head_dim },
        { name: `${prefix}.attn_k.weight`, shape: [kv, h], interleaved: head_dim },
        { name: `${prefix}.attn_v.weight`, shape: [kv, h] },
      ];
    case "attn.o":
      return [{ name: `${prefix}.attn_output.weight`, shape: [h, q] }];
    case "mlp_norm":
      return [{ name: `${prefix}.ffn_norm.weight`, shape: [h] }];
    case "mlp.gate_up":
      return [
        { name: `${prefix}.ffn_gate.weight`, shape: [m, h] },
        { name: `${prefix}.ffn_up.weight`, shape: [m, h] },
      ];
    case "mlp.down":
      return [{ name: `${prefix}.ffn_down.weight`, shape: [h, m] }];
    case "norm":
      return [{ name: "output_norm.weight", shape: [h] }];
    case "head":
      return [{ name: "output.weight", shape: [a.vocab_size, h] }];
    default:
      throw new Error(`unknown tensor '${name}'`);
  }
}

/** Before anything is written: every tensor is there, and none that Fathom would leave out, such as a bias. */
function requireTensors(file: GgufFile, a: Architecture): void {
  const known = new Set([ROPE_FACTORS_TENSOR]);
  for (const name of tensorShapes(a).keys()) {
    for (const source of sourceTensors(a, name)) {
      file.requireTensor(source.name, source.shape);
      known.add(source.name);
    }
  }
  for (const name of file.tensors.keys()) {
    if (!known.has(name)) throw new CheckpointError(file.path, `tensor '${name}' is not supported`);
  }
}

async function* readPacked(file: GgufFile, a: Architecture, name: string): AsyncGenerator<Float32Array> {
  const parts = sourceTensors(a, name).map((source) =>
    source.interleaved === undefined
      ? file.read(source.name, source.shape)
      : unpermute(file.read(source.name, source.shape, source.interleaved), source.interleaved, a.hidden_size),
  );
  yield* concatenate(...parts);
}

/**
 * Undoes what llama.cpp's converter does to q and k for its interleaved RoPE: within a head of D rows, it stores rotate-half
 * row j·D/2 + i as row 2i + j.
 */
async function* unpermute(
  chunks: AsyncIterable<Float32Array>,
  headDim: number,
  rowLength: number,
): AsyncGenerator<Float32Array> {
  const half = headDim / 2;
  let out = new Float32Array(0);
  for await (const chunk of chunks) {
    if (out.length < chunk.length) out = new Float32Array(chunk.length);
    const rows = chunk.length / rowLength;
    for (let row = 0; row < rows; row++) {
      const inHead = row % headDim;
      const from = row - inHead + 2 * (inHead % half) + Math.floor(inHead / half);
      out.set(chunk.subarray(from * rowLength, (from + 1) * rowLength), row * rowLength);
    }
    yield out.subarray(0, chunk.length);
  }
}

function text(value: unknown): string | undefined {
  return typeof value === "string" && value !== "" ? value : undefined;
}
