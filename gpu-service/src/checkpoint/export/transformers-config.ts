import type { Architecture, Manifest } from "@fathom/shared";
import { dtypeFacts, type ExportDtype } from "./dtype.ts";

/** `config.json` in the spelling of transformers 5 (`rope_parameters`, `dtype`). */
export function transformersConfig(manifest: Manifest, dtype: ExportDtype): string {
  const { architecture: a } = manifest;
  return pythonJson({
    architectures: ["LlamaForCausalLM"],
    attention_bias: false,
    attention_dropout: 0,
    ...specialTokens(manifest),
    dtype: dtypeFacts(dtype).transformers,
    head_dim: a.head_dim,
    hidden_act: "silu",
    hidden_size: a.hidden_size,
    initializer_range: 0.02,
    intermediate_size: a.intermediate_size,
    max_position_embeddings: a.context_length,
    mlp_bias: false,
    model_type: "llama",
    num_attention_heads: a.heads,
    num_hidden_layers: a.layers,
    num_key_value_heads: a.kv_heads,
    rms_norm_eps: a.rms_norm_eps,
    rope_parameters: ropeParameters(a.rope),
    tie_word_embeddings: a.tied,
    use_cache: true,
    vocab_size: a.vocab_size,
  });
}

/** `generation_config.json`: where a text starts and ends. */
export function generationConfig(manifest: Manifest): string {
  return pythonJson({ _from_model_config: true, ...specialTokens(manifest), use_cache: true });
}

function specialTokens({ tokenizer }: Manifest) {
  const { bos_token_id, eos_token_ids: eos } = tokenizer;
  return { bos_token_id, eos_token_id: eos.length > 1 ? eos : (eos[0] ?? null) };
}

function ropeParameters({ theta, llama3 }: Architecture["rope"]) {
  if (!llama3) return { rope_theta: theta, rope_type: "default" };
  return { ...llama3, rope_theta: theta, rope_type: "llama3" };
}

/** transformers warns about a whole number where it wants a float, so `8` is written as `8.0` there. */
const FLOATS = /("(?:attention_dropout|rope_theta|factor|low_freq_factor|high_freq_factor)": \d+)(?=,?\n)/g;

function pythonJson(value: object): string {
  return `${JSON.stringify(value, null, 2)}\n`.replace(FLOATS, "$1.0");
}
