import { headTensors, type Manifest } from "@fathom/shared";
import { GraphBuilder, MICROSOFT } from "./graph-builder.ts";
import { type Attend, decoderLayer, type Residual, ROPE_INPUTS, rmsNorm, settle } from "./llama-layer.ts";
import { embedding, storedWeights } from "./weights.ts";

/**
 * Names of a segment's inputs and outputs. S is the number of new positions, T the number of past ones, G the query heads
 * per K/V head.
 *
 * inputs: `tokens` int64 [S] (first segment) or `hidden` float32 [1, S, H]; `cos`, `sin` float32 [S, D/2], the rotary rows of
 * the new positions; `mask` float32 [G·S or 1, T + S], 0 where a new position may look and a large negative number elsewhere;
 * `split` int64 [2] = [T, S] with T ≥ 1 (ONNX Runtime's MatMul divides by zero on an empty past); per layer `past_k.{i}`,
 * `past_v.{i}` float32 [T, kv_heads, D].
 * outputs: `hidden_out` float32 [1, S, H]; `new_kv` float32 [layers · 2 · S, kv_heads, D], the new rows layer by layer, K before
 * V: one tensor, because every tensor that crosses into JavaScript costs microseconds.
 */
export const SEGMENT = {
  ...ROPE_INPUTS,
  tokens: "tokens",
  hidden: "hidden",
  hiddenOut: "hidden_out",
  mask: "mask",
  split: "split",
  pastK: (layer: number) => `past_k.${layer}`,
  pastV: (layer: number) => `past_v.${layer}`,
  newKv: "new_kv",
} as const;

/** The head's input `hidden` float32 [1, S, H] and output `logits` float32 [1, S, V]. */
export const HEAD = { hidden: "hidden", logits: "logits" } as const;

/** Builds the decoder layers `from` (inclusive) to `to` (exclusive) as one ONNX model; the first segment embeds as well. */
export function buildSegment(manifest: Manifest, from: number, to: number): Uint8Array {
  const a = manifest.architecture;
  const b = new GraphBuilder(`layers ${from}-${to}`);
  const stream =
    from === 0
      ? b.node("Unsqueeze", [embedding(b, manifest, b.input(SEGMENT.tokens, "int64", ["S"])), b.int64s([0])])
      : b.input(SEGMENT.hidden, "float32", [1, "S", a.hidden_size]);
  b.input(SEGMENT.cos, "float32", ["S", a.head_dim / 2]);
  b.input(SEGMENT.sin, "float32", ["S", a.head_dim / 2]);
  b.input(SEGMENT.mask, "float32", ["rows", "T+S"]);
  b.input(SEGMENT.split, "int64", [2]);

  const weights = storedWeights(manifest);
  const newRows: string[] = [];
  const attend = attendToCache(manifest, newRows);
  let residual: Residual = { stream, delta: undefined };
  for (let layer = from; layer < to; layer++) residual = decoderLayer(b, a, weights, layer, residual, attend);
  b.output(settle(b, residual, SEGMENT.hiddenOut), "float32", [1, "S", a.hidden_size]);
  b.node("Concat", newRows, { attributes: { axis: 0 }, as: SEGMENT.newKv });
  b.output(SEGMENT.newKv, "float32", ["rows_kv", a.kv_heads, a.head_dim]);
  return b.encode();
}

/** Builds the norm and LM head of an exit: the final ones, which exits share, or the exit's own. */
export function buildHead(manifest: Manifest, depth: number): Uint8Array {
  const a = manifest.architecture;
  const names = headTensors(a, depth, manifest.exit_heads);
  const b = new GraphBuilder(`${names.norm} and ${names.head}`);
  const stream = b.input(HEAD.hidden, "float32", [1, "S", a.hidden_size]);
  const weights = storedWeights(manifest);
  const { normed } = rmsNorm(b, a, weights, names.norm, { stream, delta: undefined });
  const logits = weights.linear(b, names.head, normed);
  b.output(b.node("Identity", [logits], { as: HEAD.logits }), "float32", [1, "S", a.vocab_size]);
  return b.encode();
}

/**
 * Attention of one sequence's new positions to its past and to each other. Scores against the past and against the new rows
 * are computed apart and joined before the softmax, so the past K/V enters as a plain input and is never copied; only the
 * new rows leave.
 * @param newRows receives the names of each layer's new K and V rows
 */
function attendToCache(manifest: Manifest, newRows: string[]): Attend {
  const { heads, kv_heads: kvHeads, head_dim: headDim } = manifest.architecture;
  const group = heads / kvHeads;
  const alpha = { float: 1 / Math.sqrt(headDim) };
  return (b, layer, q, k, v) => {
    const rows = b.int64s([-1, kvHeads, headDim]);
    const newK = b.node("Reshape", [k, rows]);
    const newV = b.node("Reshape", [v, rows]);
    newRows.push(newK, newV);
    const pastK = b.input(SEGMENT.pastK(layer), "float32", ["T", kvHeads, headDim]);
    const pastV = b.input(SEGMENT.pastV(layer), "float32", ["T", kvHeads, headDim]);

    // Query heads of one K/V head become rows of one product: [kv, G·S, D].
    const grouped = b.node("Reshape", [q, b.int64s([-1, kvHeads, group, headDim])]);
    const byHead = b.node("Transpose", [grouped], { attributes: { perm: [1, 2, 0, 3] } });
    const query = b.node("Reshape", [byHead, b.int64s([kvHeads, -1, headDim])]);

    const scores = (keys: string) =>
      b.node("FusedMatMul", [query, keys], { attributes: { transB: 1, transBatchB: 1, alpha }, domain: MICROSOFT });
    const weighted = (weights: string, values: string) =>
      b.node("FusedMatMul", [weights, values], { attributes: { transBatchB: 1 }, domain: MICROSOFT });

    const joined = b.node("Concat", [scores(pastK), scores(newK)], { attributes: { axis: -1 } });
    const weights = b.node("Softmax", [b.node("Add", [joined, SEGMENT.mask])], { attributes: { axis: -1 } });
    const [pastWeights = "", newWeights = ""] = b.multi("Split", [weights, SEGMENT.split], 2, { axis: -1 });
    const context = b.node("Add", [weighted(pastWeights, pastV), weighted(newWeights, newV)]);

    const ungrouped = b.node("Reshape", [context, b.int64s([kvHeads, group, -1, headDim])]);
    const byRow = b.node("Transpose", [ungrouped], { attributes: { perm: [2, 0, 1, 3] } });
    return b.node("Reshape", [byRow, b.int64s([1, -1, heads * headDim])]);
  };
}
