import { headTensors, type Manifest } from "@fathom/shared";
import { GraphBuilder, MICROSOFT } from "./graph-builder.ts";
import { type Attend, decoderLayer, type Residual, rmsNorm, settle } from "./llama-layer.ts";
import { embedding, storedWeights } from "./weights.ts";

/**
 * Names of a segment's inputs and outputs. A call runs R rows: new positions of several sequences, each of which has a lane of
 * the K/V. L is the number of neighbouring lanes that the call sees, S the most new positions that a lane has in it, T the
 * positions that every lane has room for, C the context, G the query heads per K/V head.
 *
 * inputs: `tokens` int64 [R] (first segment) or `hidden` float32 [R, H]; `lane_rows` int64 [L, S], the row of each lane's
 * new positions (any row where a lane has fewer); `row_slots` int64 [R], where in those L·S each row is; `positions` int64
 * [L, S]; `cos`, `sin` float32 [C, D/2]; `mask` float32 [L, 1, G·S or 1, T + S], 0 where a new position may look and a large
 * negative number elsewhere; `split` int64 [2] = [T, S]; per layer `past_k.{i}`, `past_v.{i}` float32 [L, kv_heads, T, D].
 * outputs: `hidden_out` float32 [R, H]; `new_kv` float32 [layers · 2 · L, kv_heads, S, D], the lanes' new rows layer by
 * layer, K before V: one tensor, because every tensor that crosses into JavaScript costs microseconds.
 */
export const SEGMENT = {
  tokens: "tokens",
  hidden: "hidden",
  hiddenOut: "hidden_out",
  laneRows: "lane_rows",
  rowSlots: "row_slots",
  positions: "positions",
  cos: "cos",
  sin: "sin",
  mask: "mask",
  split: "split",
  pastK: (layer: number) => `past_k.${layer}`,
  pastV: (layer: number) => `past_v.${layer}`,
  newKv: "new_kv",
} as const;

/**
 * The head's input `hidden` float32 [R, H] and its outputs: `logits` float32 [R, V], the most probable `token` int64
 * [R] (the lowest id of a tie), and its probability, `confidence` float32 [R].
 */
export const HEAD = { hidden: "hidden", logits: "logits", token: "token", confidence: "confidence" } as const;

/** Builds the decoder layers `from` (inclusive) to `to` (exclusive) as one ONNX model; the first segment embeds as well. */
export function buildSegment(manifest: Manifest, from: number, to: number): Uint8Array {
  const a = manifest.architecture;
  const b = new GraphBuilder(`layers ${from}-${to}`);
  const stream =
    from === 0
      ? embedding(b, manifest, b.input(SEGMENT.tokens, "int64", ["R"]))
      : b.input(SEGMENT.hidden, "float32", ["R", a.hidden_size]);
  b.input(SEGMENT.laneRows, "int64", ["L", "S"]);
  b.input(SEGMENT.rowSlots, "int64", ["R"]);
  b.input(SEGMENT.positions, "int64", ["L", "S"]);
  b.input(SEGMENT.cos, "float32", ["C", a.head_dim / 2]);
  b.input(SEGMENT.sin, "float32", ["C", a.head_dim / 2]);
  b.input(SEGMENT.mask, "float32", ["L", 1, "rows", "T+S"]);
  b.input(SEGMENT.split, "int64", [2]);

  const weights = storedWeights(manifest);
  const newRows: string[] = [];
  const attend = attendToLanes(manifest, newRows);
  let residual: Residual = { stream, delta: undefined };
  for (let layer = from; layer < to; layer++) residual = decoderLayer(b, a, weights, layer, residual, attend);
  b.output(settle(b, residual, SEGMENT.hiddenOut), "float32", ["R", a.hidden_size]);
  b.node("Concat", newRows, { attributes: { axis: 0 }, as: SEGMENT.newKv });
  b.output(SEGMENT.newKv, "float32", ["lanes_kv", a.kv_heads, "S", a.head_dim]);
  return b.encode();
}

/** Builds the norm and LM head of an exit: the final ones, which exits share, or the exit's own. */
export function buildHead(manifest: Manifest, depth: number): Uint8Array {
  const a = manifest.architecture;
  const names = headTensors(a, depth, manifest.exit_heads);
  const b = new GraphBuilder(`${names.norm} and ${names.head}`);
  const stream = b.input(HEAD.hidden, "float32", ["R", a.hidden_size]);
  const weights = storedWeights(manifest);
  const { normed } = rmsNorm(b, a, weights, names.norm, { stream, delta: undefined });
  const logits = b.node("Identity", [weights.linear(b, names.head, normed)], { as: HEAD.logits });
  b.output(logits, "float32", ["R", a.vocab_size]);
  b.output(b.node("ArgMax", [logits], { attributes: { axis: -1, keepdims: 0 }, as: HEAD.token }), "int64", ["R"]);
  const probabilities = b.node("Softmax", [logits], { attributes: { axis: -1 } });
  const top = { attributes: { keepdims: 0 }, as: HEAD.confidence };
  b.output(b.node("ReduceMax", [probabilities, b.int64s([-1])], top), "float32", ["R"]);
  return b.encode();
}

/**
 * Attention of the rows to their lanes' past and to the new positions of their own lane. Matrix products with weights run
 * over the rows as they come; for attention they are arranged by lane, so that lanes of any length and any number of new
 * positions share one call. Scores against the past and against the new rows are computed apart and joined before the
 * softmax: the past K/V enters as a plain input and is never copied; only the new rows leave.
 * @param newRows receives the names of each layer's new K and V rows
 */
function attendToLanes(manifest: Manifest, newRows: string[]): Attend {
  const { heads, kv_heads: kvHeads, head_dim: headDim } = manifest.architecture;
  const alpha = { float: 1 / Math.sqrt(headDim) };
  return (b, layer, qkv) => {
    const pastK = b.input(SEGMENT.pastK(layer), "float32", ["L", kvHeads, "T", headDim]);
    const pastV = b.input(SEGMENT.pastV(layer), "float32", ["L", kvHeads, "T", headDim]);

    const byLane = b.node("Gather", [qkv, SEGMENT.laneRows], { attributes: { axis: 0 } });
    const split = b.node("Reshape", [byLane, b.int64s([0, 0, heads + 2 * kvHeads, headDim])]);
    const byHead = b.node("Transpose", [split], { attributes: { perm: [0, 2, 1, 3] } });
    const [qk = "", newV = ""] = b.multi("Split", [byHead, b.int64s([heads + kvHeads, kvHeads])], 2, { axis: 1 });
    const rotated = b.node("RotaryEmbedding", [qk, SEGMENT.positions, SEGMENT.cos, SEGMENT.sin], {
      attributes: { interleaved: 0 },
      domain: MICROSOFT,
    });
    const [q = "", newK = ""] = b.multi("Split", [rotated, b.int64s([heads, kvHeads])], 2, { axis: 1 });
    newRows.push(newK, newV);
    // Query heads of one K/V head become rows of one product: [L, kv, G·S, D].
    const query = b.node("Reshape", [q, b.int64s([0, kvHeads, -1, headDim])]);

    const scores = (keys: string) =>
      b.node("FusedMatMul", [query, keys], { attributes: { transB: 1, alpha }, domain: MICROSOFT });
    const joined = b.node("Concat", [scores(pastK), scores(newK)], { attributes: { axis: -1 } });
    const weights = b.node("Softmax", [b.node("Add", [joined, SEGMENT.mask])], { attributes: { axis: -1 } });
    const [pastWeights = "", newWeights = ""] = b.multi("Split", [weights, SEGMENT.split], 2, { axis: -1 });
    const context = b.node("Add", [b.node("MatMul", [pastWeights, pastV]), b.node("MatMul", [newWeights, newV])]);

    const ungrouped = b.node("Reshape", [context, b.int64s([0, heads, -1, headDim])]);
    const bySlot = b.node("Transpose", [ungrouped], { attributes: { perm: [0, 2, 1, 3] } });
    const slots = b.node("Reshape", [bySlot, b.int64s([-1, heads * headDim])]);
    return b.node("Gather", [slots, SEGMENT.rowSlots], { attributes: { axis: 0 } });
  };
}
