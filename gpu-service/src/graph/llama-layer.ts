import type { Architecture } from "@fathom/shared";
import { type GraphBuilder, MICROSOFT } from "./graph-builder.ts";

/** Where a graph's weights come from: the checkpoint's files when serving, graph inputs when training. */
export interface LlamaWeights {
  /** y = x · Wᵀ for the matrix `name`, x [.., K] → y [.., N]. */
  linear(b: GraphBuilder, name: string, x: string): string;
  /** The vector `name` of a norm, float32 [H]. */
  norm(b: GraphBuilder, name: string): string;
}

/** A residual stream whose last addition is still owed, so that it can be fused into the next norm. */
export interface Residual {
  stream: string;
  delta: string | undefined;
}

/**
 * Rotation and attention over positions: [.., (heads + 2 · kv_heads) · D], q before k before v, to [.., heads · D]. Serving
 * attends to a cache, training within a batch.
 */
export type Attend = (b: GraphBuilder, layer: number, qkv: string) => string;

/** Names of the inputs that hold the rotary rows of the new positions, float32 [S, D/2]. */
export const ROPE_INPUTS = { cos: "cos", sin: "sin" } as const;

/** One decoder layer: attention, then the gated MLP, both on pre-normed input (LLaMA, Touvron et al. 2023). */
export function decoderLayer(
  b: GraphBuilder,
  a: Architecture,
  weights: LlamaWeights,
  layer: number,
  residual: Residual,
  attend: Attend,
): Residual {
  return mlp(b, a, weights, layer, attention(b, a, weights, layer, residual, attend));
}

/** RMSNorm of the stream with its owed addition, and the stream with the addition made. */
export function rmsNorm(
  b: GraphBuilder,
  a: Architecture,
  weights: LlamaWeights,
  name: string,
  residual: Residual,
): { normed: string; stream: string } {
  const epsilon = { float: a.rms_norm_eps };
  const weight = weights.norm(b, name);
  const { stream, delta } = residual;
  if (delta === undefined) {
    const attributes = { axis: -1, epsilon };
    return { normed: b.node("SimplifiedLayerNormalization", [stream, weight], { attributes }), stream };
  }
  const normed = b.fresh("norm");
  const sum = b.fresh("stream");
  b.nodes("SkipSimplifiedLayerNormalization", [stream, delta, weight], [normed, "", "", sum], {
    attributes: { epsilon },
    domain: MICROSOFT,
  });
  return { normed, stream: sum };
}

/** Makes the owed addition. */
export function settle(b: GraphBuilder, { stream, delta }: Residual, as: string): string {
  return delta === undefined ? b.node("Identity", [stream], { as }) : b.node("Add", [stream, delta], { as });
}

function attention(
  b: GraphBuilder,
  a: Architecture,
  weights: LlamaWeights,
  layer: number,
  residual: Residual,
  attend: Attend,
): Residual {
  const { normed, stream } = rmsNorm(b, a, weights, `layers.${layer}.attn_norm`, residual);
  const qkv = weights.linear(b, `layers.${layer}.attn.qkv`, normed);
  return { stream, delta: weights.linear(b, `layers.${layer}.attn.o`, attend(b, layer, qkv)) };
}

/** Splits packed projections [.., S, N] and rotates q and k; the rotary rows of the positions come in as `ROPE_INPUTS`. */
export function rotate(b: GraphBuilder, a: Architecture, qkv: string): { q: string; k: string; v: string } {
  const { heads, kv_heads: kvHeads, head_dim: headDim } = a;
  const [qk = "", v = ""] = b.split(qkv, [(heads + kvHeads) * headDim, kvHeads * headDim]);
  // One rotation for q and k together; the rotary rows of the new positions start at row 0.
  const rotated = b.node("RotaryEmbedding", [qk, b.int64s([0]), ROPE_INPUTS.cos, ROPE_INPUTS.sin], {
    attributes: { num_heads: heads + kvHeads, rotary_embedding_dim: 0, interleaved: 0 },
    domain: MICROSOFT,
  });
  const [q = "", k = ""] = b.split(rotated, [heads * headDim, kvHeads * headDim]);
  return { q, k, v };
}

function mlp(b: GraphBuilder, a: Architecture, weights: LlamaWeights, layer: number, residual: Residual): Residual {
  const size = a.intermediate_size;
  const { normed, stream } = rmsNorm(b, a, weights, `layers.${layer}.mlp_norm`, residual);
  const gateUp = weights.linear(b, `layers.${layer}.mlp.gate_up`, normed);
  const [gate = "", up = ""] = b.split(gateUp, [size, size]);
  // QuickGelu with alpha 1 is x · sigmoid(x): SiLU in one kernel.
  const silu = b.node("QuickGelu", [gate], { attributes: { alpha: { float: 1 } }, domain: MICROSOFT });
  const activated = b.node("Mul", [silu, up]);
  return { stream, delta: weights.linear(b, `layers.${layer}.mlp.down`, activated) };
}
