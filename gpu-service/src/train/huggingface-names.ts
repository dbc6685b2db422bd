import type { Architecture } from "@fathom/shared";

/** A Hugging Face parameter as rows of one of ours. */
export interface HuggingFaceTensor {
  name: string;
  /** Our tensor and the rows of it: projections that we pack are apart there. */
  source: string;
  fromRow: number;
  rows: number;
  /** Values per row; 0 for a vector, whose rows are its values. */
  columns: number;
}

/** Every Hugging Face parameter of a LLaMA, in that library's names, and where we keep it. */
export function huggingFaceTensors(a: Architecture): HuggingFaceTensor[] {
  const { hidden_size: hidden, intermediate_size: inner, vocab_size: vocab } = a;
  const q = a.heads * a.head_dim;
  const kv = a.kv_heads * a.head_dim;
  const whole = (name: string, source: string, rows: number, columns: number) => ({
    name,
    source,
    fromRow: 0,
    rows,
    columns,
  });
  const tensors = [whole("model.embed_tokens.weight", "embed", vocab, hidden)];
  for (let i = 0; i < a.layers; i++) {
    const ours = `layers.${i}`;
    const theirs = `model.layers.${i}`;
    tensors.push(
      whole(`${theirs}.input_layernorm.weight`, `${ours}.attn_norm`, hidden, 0),
      { name: `${theirs}.self_attn.q_proj.weight`, source: `${ours}.attn.qkv`, fromRow: 0, rows: q, columns: hidden },
      { name: `${theirs}.self_attn.k_proj.weight`, source: `${ours}.attn.qkv`, fromRow: q, rows: kv, columns: hidden },
      {
        name: `${theirs}.self_attn.v_proj.weight`,
        source: `${ours}.attn.qkv`,
        fromRow: q + kv,
        rows: kv,
        columns: hidden,
      },
      whole(`${theirs}.self_attn.o_proj.weight`, `${ours}.attn.o`, hidden, q),
      whole(`${theirs}.post_attention_layernorm.weight`, `${ours}.mlp_norm`, hidden, 0),
      {
        name: `${theirs}.mlp.gate_proj.weight`,
        source: `${ours}.mlp.gate_up`,
        fromRow: 0,
        rows: inner,
        columns: hidden,
      },
      {
        name: `${theirs}.mlp.up_proj.weight`,
        source: `${ours}.mlp.gate_up`,
        fromRow: inner,
        rows: inner,
        columns: hidden,
      },
      whole(`${theirs}.mlp.down_proj.weight`, `${ours}.mlp.down`, hidden, inner),
    );
  }
  tensors.push(whole("model.norm.weight", "norm", hidden, 0));
  if (!a.tied) tensors.push(whole("lm_head.weight", "head", vocab, hidden));
  return tensors;
}

/** The slice of `values` (one of our tensors) that a Hugging Face parameter is; a view. */
export function sliceFor({ fromRow, rows, columns }: HuggingFaceTensor, values: Float32Array): Float32Array {
  const width = Math.max(columns, 1);
  return values.subarray(fromRow * width, (fromRow + rows) * width);
}
