import { expect, test } from "vitest";
import { parseLlamaConfig } from "./llama-config.ts";

const config = {
  model_type: "llama",
  architectures: ["LlamaForCausalLM"],
  hidden_size: 64,
  intermediate_size: 160,
  num_hidden_layers: 4,
  num_attention_heads: 4,
  num_key_value_heads: 2,
  vocab_size: 100,
  max_position_embeddings: 512,
  rms_norm_eps: 1e-5,
  hidden_act: "silu",
  bos_token_id: 1,
  eos_token_id: [2, 7],
};
const llama3 = { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 };

const parse = (changes: object) => parseLlamaConfig("config.json", { ...config, ...changes });

test("reads the older spelling and the newer one alike", () => {
  const old = parse({ rope_theta: 500000, rope_scaling: { rope_type: "llama3", ...llama3 } });
  const recent = parse({ rope_parameters: { rope_theta: 500000, rope_type: "llama3", ...llama3 } });
  expect(old.architecture.rope).toEqual({ theta: 500000, llama3 });
  expect(recent).toEqual(old);
});

test("reads the oldest spelling of the scaling type", () => {
  expect(parse({ rope_scaling: { type: "llama3", ...llama3 } }).architecture.rope.llama3).toEqual(llama3);
});

test.each([
  ["no RoPE fields", {}, 10000],
  ["null scaling", { rope_theta: 20000, rope_scaling: null }, 20000],
  ["default parameters", { rope_parameters: { rope_theta: 30000, rope_type: "default" } }, 30000],
  ["parameters without theta", { rope_theta: 40000, rope_parameters: { rope_type: "default" } }, 40000],
])("%s", (_, changes, theta) => {
  expect(parse(changes).architecture.rope).toEqual({ theta });
});

test("implies head_dim and K/V heads as transformers does", () => {
  expect(parse({}).architecture).toMatchObject({ heads: 4, kv_heads: 2, head_dim: 16, tied: false });
  expect(parse({ head_dim: null, num_key_value_heads: null }).architecture).toMatchObject({
    kv_heads: 4,
    head_dim: 16,
  });
  expect(parse({ head_dim: 32 }).architecture.head_dim).toBe(32);
  expect(parse({ tie_word_embeddings: true }).architecture.tied).toBe(true);
});

test("token ids may be one, several or none", () => {
  expect(parse({})).toMatchObject({ bosTokenId: 1, eosTokenIds: [2, 7] });
  expect(parse({ bos_token_id: null, eos_token_id: 5 })).toMatchObject({ bosTokenId: null, eosTokenIds: [5] });
  expect(parse({ bos_token_id: undefined, eos_token_id: null })).toMatchObject({ bosTokenId: null, eosTokenIds: [] });
});

test.each([
  [{ model_type: "mistral" }, "the architecture is 'mistral'; only 'llama' is supported"],
  [{ model_type: undefined }, "'model_type' is missing"],
  [{ architectures: ["LlamaForSequenceClassification"] }, "LlamaForSequenceClassification"],
  [{ attention_bias: true }, "'attention_bias': true is not supported"],
  [{ mlp_bias: true }, "'mlp_bias': true is not supported"],
  [{ hidden_act: "gelu" }, "'hidden_act': 'gelu' is not supported"],
  [{ rope_scaling: { type: "linear", factor: 2 } }, "RoPE scaling of type 'linear' is not supported"],
  [{ rope_parameters: { rope_type: "yarn", factor: 2 } }, "RoPE scaling of type 'yarn' is not supported"],
  [{ rope_scaling: { rope_type: "llama3", factor: 8 } }, "needs factor, low_freq_factor"],
  [{ partial_rotary_factor: 0.5 }, "'partial_rotary_factor': 0.5 is not supported"],
  [{ quantization_config: { quant_method: "gptq" } }, "quantisation by 'gptq' is not supported"],
  [{ num_key_value_heads: 3 }, "'num_key_value_heads': 3 does not divide the 4 heads"],
  [{ num_attention_heads: 3, num_key_value_heads: 3 }, "'head_dim': 21.3"],
  [{ hidden_size: -1 }, "'hidden_size'"],
  [{ hidden_size: "64" }, "'hidden_size'"],
  [{ vocab_size: undefined }, "'vocab_size'"],
  [{ num_hidden_layers: 1e300 }, "'num_hidden_layers'"],
])("refuses %j", (changes, reason) => {
  expect(() => parse(changes)).toThrow(reason);
  expect(() => parse(changes)).toThrow("config.json: ");
});
