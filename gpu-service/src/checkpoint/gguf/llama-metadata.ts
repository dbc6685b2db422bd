import type { Architecture } from "@fathom/shared";
import { z } from "zod";
import { CheckpointError } from "../checkpoint-error.ts";
import type { GgufFile } from "./gguf-file.ts";
import { readLlama3Scaling } from "./rope-factors.ts";

/** GGUF stores sizes as 32 or 64 bits; the latter come as bigint. */
const Size = z.union([z.int(), z.bigint().transform(Number)]).pipe(
  z
    .int()
    .min(1)
    .max(2 ** 31),
);

const LlamaMetadata = z.object({
  "llama.block_count": Size,
  "llama.context_length": Size,
  "llama.embedding_length": Size,
  "llama.feed_forward_length": Size,
  "llama.attention.head_count": Size,
  "llama.attention.head_count_kv": Size.optional(),
  "llama.attention.key_length": Size.optional(),
  "llama.attention.value_length": Size.optional(),
  "llama.attention.layer_norm_rms_epsilon": z.number().positive(),
  "llama.rope.dimension_count": Size.optional(),
  "llama.rope.freq_base": z.number().positive().default(10000),
  "llama.rope.scaling.type": z.string().optional(),
  "llama.expert_count": z.union([z.int(), z.bigint().transform(Number)]).default(0),
  "split.count": z.union([z.int(), z.bigint().transform(Number)]).default(0),
});

/**
 * Reads the architecture from a GGUF file's metadata.
 * @throws CheckpointError for another architecture and for anything that Fathom would compute wrongly.
 */
export async function readLlamaMetadata(file: GgufFile): Promise<Architecture> {
  const bad = (reason: string) => new CheckpointError(file.path, reason);
  const type = file.metadata["general.architecture"];
  if (type !== "llama") throw bad(`the architecture is '${type}'; only 'llama' is supported`);
  const result = LlamaMetadata.safeParse(file.metadata);
  if (!result.success) {
    const issue = result.error.issues[0];
    throw bad(`metadata '${issue?.path.join(".")}': ${issue?.message}`);
  }
  const m = result.data;
  if (m["llama.expert_count"] > 0) throw bad("mixtures of experts are not supported");
  if (m["split.count"] > 1) throw bad(`is one of ${m["split.count"]} parts: merge them with llama-gguf-split first`);
  const scaling = m["llama.rope.scaling.type"] ?? "none";
  if (scaling !== "none") throw bad(`RoPE scaling of type '${scaling}' is not supported`);

  const heads = m["llama.attention.head_count"];
  const kvHeads = m["llama.attention.head_count_kv"] ?? heads;
  const headDim = m["llama.attention.key_length"] ?? m["llama.embedding_length"] / heads;
  if (!Number.isInteger(headDim) || headDim % 2 !== 0) throw bad(`the head dimension ${headDim} is not an even number`);
  if (heads % kvHeads !== 0) throw bad(`${kvHeads} K/V heads do not divide the ${heads} heads`);
  if ((m["llama.attention.value_length"] ?? headDim) !== headDim) {
    throw bad("keys and values of different length are not supported");
  }
  if ((m["llama.rope.dimension_count"] ?? headDim) !== headDim) throw bad("partial RoPE is not supported");
  const vocabulary = file.tensors.get("token_embd.weight")?.shape[0];
  if (vocabulary === undefined) throw bad("tensor 'token_embd.weight' is missing");
  return {
    type: "llama",
    hidden_size: m["llama.embedding_length"],
    intermediate_size: m["llama.feed_forward_length"],
    layers: m["llama.block_count"],
    heads,
    kv_heads: kvHeads,
    head_dim: headDim,
    vocab_size: vocabulary,
    rms_norm_eps: shortest(m["llama.attention.layer_norm_rms_epsilon"]),
    context_length: m["llama.context_length"],
    rope: { theta: shortest(m["llama.rope.freq_base"]), ...(await readLlama3Scaling(file, headDim)) },
    tied: !file.tensors.has("output.weight"),
  };
}

/** The decimal that was meant: GGUF rounds 1e-5 to float32, which reads as 0.000009999999747378752. */
function shortest(value: number): number {
  return Number(value.toPrecision(7));
}
