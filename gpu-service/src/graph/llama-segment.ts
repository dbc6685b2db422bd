import type { Manifest } from "@fathom/shared";
import { GraphBuilder, MICROSOFT } from "./graph-builder.ts";
import { embedding, linear, normWeight } from "./weights.ts";

/**
 * Names of a segment's inputs and outputs. S is the number of new positions, T the number of past ones, G the query heads
 * per K/V head.
 *
 * inputs: `tokens` int64 [S] (first segment) or `hidden` float32 [1, S, H]; `cos`, `sin` float32 [S, D/2], the rotary rows of
 * the new positions; `mask` float32 [G·S or 1, T + S], 0 where a new position may look and a large negative number elsewhere;
 * `split` int64 [2] = [T, S] with T ≥ 1 (ONNX Runtime's MatMul divides by zero on an empty past); per layer `past_k.{i}`, `past_v.{i}` float32 [T, kv_heads, D].
 * outputs: `hidden_out` float32 [1, S, H]; per layer the new rows `k.{i}`, `v.{i}` float32 [S, kv_heads, D].
 */
export const SEGMENT = {
  tokens: "tokens",
  hidden: "hidden",
  hiddenOut: "hidden_out",
  cos: "cos",
  sin: "sin",
  mask: "mask",
  split: "split",
  pastK: (layer: number) => `past_k.${layer}`,
  pastV: (layer: number) => `past_v.${layer}`,
  k: (layer: number) => `k.${layer}`,
  v: (layer: number) => `v.${layer}`,
} as const;

/** The head's input `hidden` float32 [1, S, H] and output `logits` float32 [1, S, V]. */
export const HEAD = { hidden: "hidden", logits: "logits" } as const;

/** A residual stream whose last addition is still owed, so that it can be fused into the next norm. */
interface Residual {
  stream: string;
  delta: string | undefined;
}

/**
 * Builds the decoder layers `from` (inclusive) to `to` (exclusive) as one ONNX model; the first segment embeds as well.
 *
 * Attention scores against the past and against the new rows are computed apart and joined before the softmax, so the past
 * K/V enters as a plain input and is never copied; only the new rows leave.
 */
export function buildSegment(manifest: Manifest, from: number, to: number): Uint8Array {
  const a = manifest.architecture;
  const b = new GraphBuilder(`layers ${from}-${to}`);
  const hidden =
    from === 0
      ? b.node("Unsqueeze", [embedding(b, manifest, b.input(SEGMENT.tokens, "int64", ["S"])), b.int64s([0])])
      : b.input(SEGMENT.hidden, "float32", [1, "S", a.hidden_size]);
  b.input(SEGMENT.cos, "float32", ["S", a.head_dim / 2]);
  b.input(SEGMENT.sin, "float32", ["S", a.head_dim / 2]);
  b.input(SEGMENT.mask, "float32", ["rows", "T+S"]);
  b.input(SEGMENT.split, "int64", [2]);

  let residual: Residual = { stream: hidden, delta: undefined };
  for (let layer = from; layer < to; layer++) {
    residual = attention(b, manifest, layer, residual);
    residual = mlp(b, manifest, layer, residual);
  }
  b.node("Add", [residual.stream, residual.delta ?? ""], { as: SEGMENT.hiddenOut });
  b.output(SEGMENT.hiddenOut, "float32", [1, "S", a.hidden_size]);
  return b.encode();
}

/** Builds the final norm and LM head that all exits share. */
export function buildHead(manifest: Manifest): Uint8Array {
  const a = manifest.architecture;
  const b = new GraphBuilder("norm and head");
  const hidden = b.input(HEAD.hidden, "float32", [1, "S", a.hidden_size]);
  const { normed } = rmsNorm(b, manifest, "norm", { stream: hidden, delta: undefined });
  const logits = linear(b, manifest, a.tied ? "embed" : "head", normed);
  b.node("Identity", [logits], { as: HEAD.logits });
  b.output(HEAD.logits, "float32", [1, "S", a.vocab_size]);
  return b.encode();
}

function rmsNorm(
  b: GraphBuilder,
  manifest: Manifest,
  name: string,
  residual: Residual,
): { normed: string; stream: string } {
  const epsilon = { float: manifest.architecture.rms_norm_eps };
  const weight = normWeight(b, manifest, name);
  if (residual.delta === undefined) {
    const attributes = { axis: -1, epsilon };
    return {
      normed: b.node("SimplifiedLayerNormalization", [residual.stream, weight], { attributes }),
      stream: residual.stream,
    };
  }
  const normed = b.fresh("norm");
  const stream = b.fresh("stream");
  b.nodes("SkipSimplifiedLayerNormalization", [residual.stream, residual.delta, weight], [normed, "", "", stream], {
    attributes: { epsilon },
    domain: MICROSOFT,
  });
  return { normed, stream };
}

function attention(b: GraphBuilder, manifest: Manifest, layer: number, residual: Residual): Residual {
  const { heads, kv_heads: kvHeads, head_dim: headDim } = manifest.architecture;
  const group = heads / kvHeads;
  const { normed, stream } = rmsNorm(b, manifest, `layers.${layer}.attn_norm`, residual);

  const qkv = linear(b, manifest, `layers.${layer}.attn.qkv`, normed);
  const [qk = "", v = ""] = b.multi("Split", [qkv, b.int64s([(heads + kvHeads) * headDim, kvHeads * headDim])], 2, {
    axis: -1,
  });
  // One rotation for q and k together: the cache rows of the new positions start at row 0.
  const rotated = b.node("RotaryEmbedding", [qk, b.int64s([0]), SEGMENT.cos, SEGMENT.sin], {
    attributes: { num_heads: heads + kvHeads, rotary_embedding_dim: 0, interleaved: 0 },
    domain: MICROSOFT,
  });
  const [q = "", k = ""] = b.multi("Split", [rotated, b.int64s([heads * headDim, kvHeads * headDim])], 2, { axis: -1 });

  const row = [-1, kvHeads, headDim];
  const newK = b.node("Reshape", [k, b.int64s(row)], { as: SEGMENT.k(layer) });
  const newV = b.node("Reshape", [v, b.int64s(row)], { as: SEGMENT.v(layer) });
  b.output(newK, "float32", ["S", kvHeads, headDim]);
  b.output(newV, "float32", ["S", kvHeads, headDim]);
  const pastK = b.input(SEGMENT.pastK(layer), "float32", ["T", kvHeads, headDim]);
  const pastV = b.input(SEGMENT.pastV(layer), "float32", ["T", kvHeads, headDim]);

  // Query heads of one K/V head become rows of one product: [kv, G·S, D].
  const split = b.node("Reshape", [q, b.int64s([-1, kvHeads, group, headDim])]);
  const byHead = b.node("Transpose", [split], { attributes: { perm: [1, 2, 0, 3] } });
  const query = b.node("Reshape", [byHead, b.int64s([kvHeads, -1, headDim])]);

  const alpha = { float: 1 / Math.sqrt(headDim) };
  const scores = (keys: string) =>
    b.node("FusedMatMul", [query, keys], { attributes: { transB: 1, transBatchB: 1, alpha }, domain: MICROSOFT });
  const weighted = (weights: string, values: string) =>
    b.node("FusedMatMul", [weights, values], { attributes: { transBatchB: 1 }, domain: MICROSOFT });

  const joined = b.node("Concat", [scores(pastK), scores(newK)], { attributes: { axis: -1 } });
  const weights = b.node("Softmax", [b.node("Add", [joined, SEGMENT.mask])], { attributes: { axis: -1 } });
  const [pastWeights = "", newWeights = ""] = b.multi("Split", [weights, SEGMENT.split], 2, { axis: -1 });
  const context = b.node("Add", [weighted(pastWeights, pastV), weighted(newWeights, newV)]);

  const heads4 = b.node("Reshape", [context, b.int64s([kvHeads, group, -1, headDim])]);
  const byRow = b.node("Transpose", [heads4], { attributes: { perm: [2, 0, 1, 3] } });
  const merged = b.node("Reshape", [byRow, b.int64s([1, -1, heads * headDim])]);
  return { stream, delta: linear(b, manifest, `layers.${layer}.attn.o`, merged) };
}

function mlp(b: GraphBuilder, manifest: Manifest, layer: number, residual: Residual): Residual {
  const size = manifest.architecture.intermediate_size;
  const { normed, stream } = rmsNorm(b, manifest, `layers.${layer}.mlp_norm`, residual);
  const gateUp = linear(b, manifest, `layers.${layer}.mlp.gate_up`, normed);
  const [gate = "", up = ""] = b.multi("Split", [gateUp, b.int64s([size, size])], 2, { axis: -1 });
  // QuickGelu with alpha 1 is x · sigmoid(x): SiLU in one kernel.
  const silu = b.node("QuickGelu", [gate], { attributes: { alpha: { float: 1 } }, domain: MICROSOFT });
  const activated = b.node("Mul", [silu, up]);
  return { stream, delta: linear(b, manifest, `layers.${layer}.mlp.down`, activated) };
}
