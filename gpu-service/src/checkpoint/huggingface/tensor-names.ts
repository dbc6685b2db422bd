import { type Architecture, tensorShapes } from "@fathom/shared";

/** Hugging Face's names and shapes of the tensors that are packed, one below the other, into ours of this `name`. */
export function sourceTensors(a: Architecture, name: string): [name: string, shape: number[]][] {
  const { hidden_size: h, intermediate_size: m } = a;
  const q = a.heads * a.head_dim;
  const kv = a.kv_heads * a.head_dim;
  const [, layer, part] = /^layers\.(\d+)\.(.+)$/.exec(name) ?? [];
  const prefix = `model.layers.${layer}`;
  switch (part ?? name) {
    case "embed":
      return [["model.embed_tokens.weight", [a.vocab_size, h]]];
    case "attn_norm":
      return [[`${prefix}.input_layernorm.weight`, [h]]];
    case "attn.qkv":
      return [
        [`${prefix}.self_attn.q_proj.weight`, [q, h]],
        [`${prefix}.self_attn.k_proj.weight`, [kv, h]],
        [`${prefix}.self_attn.v_proj.weight`, [kv, h]],
      ];
    case "attn.o":
      return [[`${prefix}.self_attn.o_proj.weight`, [h, q]]];
    case "mlp_norm":
      return [[`${prefix}.post_attention_layernorm.weight`, [h]]];
    case "mlp.gate_up":
      return [
        [`${prefix}.mlp.gate_proj.weight`, [m, h]],
        [`${prefix}.mlp.up_proj.weight`, [m, h]],
      ];
    case "mlp.down":
      return [[`${prefix}.mlp.down_proj.weight`, [h, m]]];
    case "norm":
      return [["model.norm.weight", [h]]];
    case "head":
      return [["lm_head.weight", [a.vocab_size, h]]];
    default:
      throw new Error(`unknown tensor '${name}'`);
  }
}

/** A Hugging Face parameter as a run of values of one of our tensors. */
export interface HuggingFaceTensor {
  name: string;
  shape: number[];
  /** Our tensor: projections that we pack are apart there. */
  source: string;
  /** Position of the first value in our tensor, row-major. */
  from: number;
  /** Number of values. */
  length: number;
}

/** Every Hugging Face parameter of a LLaMA and where we keep it, in the order of `tensorShapes`. */
export function huggingFaceTensors(a: Architecture): HuggingFaceTensor[] {
  return [...tensorShapes(a).keys()].flatMap((source) => {
    let from = 0;
    return sourceTensors(a, source).map(([name, shape]) => {
      const length = shape.reduce((product, size) => product * size, 1);
      from += length;
      return { name, shape, source, from: from - length, length };
    });
  });
}

/** The part of `values` (one of our tensors) that a Hugging Face parameter is; a view. */
export function sliceFor({ from, length }: HuggingFaceTensor, values: Float32Array): Float32Array {
  return values.subarray(from, from + length);
}
