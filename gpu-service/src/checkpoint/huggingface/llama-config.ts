import type { Architecture } from "@fathom/shared";
import { z } from "zod";
import { CheckpointError } from "../checkpoint-error.ts";

const RopeParameters = z.looseObject({
  rope_theta: z.number().positive().optional(),
  rope_type: z.string().optional(),
  /** The spelling before `rope_type`. */
  type: z.string().optional(),
  factor: z.number().positive().optional(),
  low_freq_factor: z.number().positive().optional(),
  high_freq_factor: z.number().positive().optional(),
  original_max_position_embeddings: z.int().min(1).optional(),
  partial_rotary_factor: z.number().optional(),
});
type RopeParameters = z.infer<typeof RopeParameters>;

const TokenIds = z.union([z.int().min(0), z.array(z.int().min(0))]).nullish();

/** What Fathom reads of a LLaMA `config.json`; defaults are those of transformers' LlamaConfig. */
const LlamaConfig = z.looseObject({
  architectures: z.array(z.string()).nullish(),
  hidden_size: z.int().min(1),
  intermediate_size: z.int().min(1),
  num_hidden_layers: z.int().min(1),
  num_attention_heads: z.int().min(1),
  num_key_value_heads: z.int().min(1).nullish(),
  head_dim: z.int().min(2).nullish(),
  vocab_size: z.int().min(2),
  max_position_embeddings: z.int().min(1).default(2048),
  rms_norm_eps: z.number().positive().default(1e-6),
  rope_theta: z.number().positive().nullish(),
  rope_scaling: RopeParameters.nullish(),
  rope_parameters: RopeParameters.nullish(),
  partial_rotary_factor: z.number().nullish(),
  tie_word_embeddings: z.boolean().default(false),
  attention_bias: z.boolean().nullish(),
  mlp_bias: z.boolean().nullish(),
  hidden_act: z.string().default("silu"),
  quantization_config: z.looseObject({ quant_method: z.string().optional() }).nullish(),
  bos_token_id: z.int().min(0).nullish(),
  eos_token_id: TokenIds,
});

export interface ParsedConfig {
  architecture: Architecture;
  bosTokenId: number | null;
  eosTokenIds: number[];
}

/**
 * Reads the `config.json` of a LLaMA model, in the spelling of transformers 4 (`rope_theta`, `rope_scaling`) or 5
 * (`rope_parameters`).
 * @param path named in errors.
 * @throws CheckpointError for another architecture and for anything that Fathom would compute wrongly.
 */
export function parseLlamaConfig(path: string, json: unknown): ParsedConfig {
  const unsupported = (what: string) => new CheckpointError(path, `${what} is not supported`);
  const type = z.looseObject({ model_type: z.string() }).safeParse(json);
  if (!type.success) throw new CheckpointError(path, "'model_type' is missing, so this is no Hugging Face model");
  if (type.data.model_type !== "llama") {
    throw new CheckpointError(path, `the architecture is '${type.data.model_type}'; only 'llama' is supported`);
  }
  const result = LlamaConfig.safeParse(json);
  if (!result.success) {
    const issue = result.error.issues[0];
    throw new CheckpointError(path, `'${issue?.path.join(".")}': ${issue?.message}`);
  }
  const config = result.data;
  if (config.architectures?.length && !config.architectures.includes("LlamaForCausalLM")) {
    throw new CheckpointError(
      path,
      `the model is a ${config.architectures.join(", ")}; only LlamaForCausalLM is supported`,
    );
  }
  if (config.quantization_config) {
    throw unsupported(`quantisation by '${config.quantization_config.quant_method ?? "unknown"}'`);
  }
  if (config.attention_bias) throw unsupported("'attention_bias': true");
  if (config.mlp_bias) throw unsupported("'mlp_bias': true");
  if (config.hidden_act !== "silu") throw unsupported(`'hidden_act': '${config.hidden_act}'`);
  const rope = config.rope_parameters ?? config.rope_scaling ?? {};
  const rotary = rope.partial_rotary_factor ?? config.partial_rotary_factor ?? 1;
  if (rotary !== 1) throw unsupported(`'partial_rotary_factor': ${rotary}`);

  const heads = config.num_attention_heads;
  const kvHeads = config.num_key_value_heads ?? heads;
  if (heads % kvHeads !== 0) {
    throw new CheckpointError(path, `'num_key_value_heads': ${kvHeads} does not divide the ${heads} heads`);
  }
  const headDim = config.head_dim ?? config.hidden_size / heads;
  if (!Number.isInteger(headDim) || headDim % 2 !== 0) {
    throw new CheckpointError(path, `'head_dim': ${headDim} is not an even number`);
  }
  const architecture: Architecture = {
    type: "llama",
    hidden_size: config.hidden_size,
    intermediate_size: config.intermediate_size,
    layers: config.num_hidden_layers,
    heads,
    kv_heads: kvHeads,
    head_dim: headDim,
    vocab_size: config.vocab_size,
    rms_norm_eps: config.rms_norm_eps,
    context_length: config.max_position_embeddings,
    rope: { theta: rope.rope_theta ?? config.rope_theta ?? 10000, ...llama3Scaling(path, rope) },
    tied: config.tie_word_embeddings,
  };
  return {
    architecture,
    bosTokenId: config.bos_token_id ?? null,
    eosTokenIds: [config.eos_token_id ?? []].flat(),
  };
}

function llama3Scaling(path: string, rope: RopeParameters): Pick<Architecture["rope"], "llama3"> {
  const type = rope.rope_type ?? rope.type ?? "default";
  if (type === "default") return {};
  if (type !== "llama3") throw new CheckpointError(path, `RoPE scaling of type '${type}' is not supported`);
  const { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } = rope;
  if (
    factor === undefined ||
    low_freq_factor === undefined ||
    high_freq_factor === undefined ||
    original_max_position_embeddings === undefined
  ) {
    throw new CheckpointError(
      path,
      "RoPE scaling of type 'llama3' needs factor, low_freq_factor, high_freq_factor and original_max_position_embeddings",
    );
  }
  return { llama3: { factor, low_freq_factor, high_freq_factor, original_max_position_embeddings } };
}
