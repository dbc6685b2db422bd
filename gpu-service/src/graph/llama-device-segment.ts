import type { Manifest } from "@fathom/shared";
import { GraphBuilder, MICROSOFT } from "./graph-builder.ts";
import { type Attend, decoderLayer, type Residual, ROPE_INPUTS, rotate, settle } from "./llama-layer.ts";
import { embedding, storedWeights } from "./weights.ts";

/**
 * Names of the inputs and outputs of a segment whose K/V stays on a device. S new positions of one sequence follow P past ones,
 * whose K/V has an unused row in front.
 *
 * inputs: `tokens` int64 [S] (first segment) or `hidden` float32 [S, H]; `cos`, `sin` float32 [S, D/2]; `mask` float32
 * [G·S, 1 + P + S]; `keep` int64 [1] = 1 + P, how much of the past counts; per layer `past_k.{i}`, `past_v.{i}` float32
 * [kv_heads, at least 1 + P, D].
 * outputs: `hidden_out` float32 [S, H]; per layer `present_k.{i}`, `present_v.{i}` float32 [kv_heads, 1 + P + S, D].
 */
export const DEVICE_SEGMENT = {
  ...ROPE_INPUTS,
  tokens: "tokens",
  hidden: "hidden",
  hiddenOut: "hidden_out",
  mask: "mask",
  keep: "keep",
  pastK: (layer: number) => `past_k.${layer}`,
  pastV: (layer: number) => `past_v.${layer}`,
  presentK: (layer: number) => `present_k.${layer}`,
  presentV: (layer: number) => `present_v.${layer}`,
} as const;

/** Builds the decoder layers `from` (inclusive) to `to` (exclusive) for a device; the first segment embeds as well. */
export function buildDeviceSegment(manifest: Manifest, from: number, to: number): Uint8Array {
  const a = manifest.architecture;
  const names = DEVICE_SEGMENT;
  const b = new GraphBuilder(`layers ${from}-${to}`);
  const stream =
    from === 0
      ? embedding(b, manifest, b.input(names.tokens, "int64", ["S"]))
      : b.input(names.hidden, "float32", ["S", a.hidden_size]);
  b.input(names.cos, "float32", ["S", a.head_dim / 2]);
  b.input(names.sin, "float32", ["S", a.head_dim / 2]);
  b.input(names.mask, "float32", ["rows", "1+P+S"]);
  b.input(names.keep, "int64", [1]);
  const weights = storedWeights(manifest);
  const attend = attendOnDevice(manifest);
  let residual: Residual = { stream: b.node("Unsqueeze", [stream, b.int64s([0])]), delta: undefined };
  for (let layer = from; layer < to; layer++) residual = decoderLayer(b, a, weights, layer, residual, attend);
  const out = settle(b, residual, "batched_out");
  b.output(b.node("Squeeze", [out, b.int64s([0])], { as: names.hiddenOut }), "float32", ["S", a.hidden_size]);
  return b.encode();
}

function attendOnDevice({ architecture: a }: Manifest): Attend {
  const { heads, kv_heads: kvHeads, head_dim: headDim } = a;
  const alpha = { float: 1 / Math.sqrt(headDim) };
  return (b, layer, qkv) => {
    const { q, k, v } = rotate(b, a, qkv);
    const byHead = (value: string, count: number) => {
      const split = b.node("Reshape", [value, b.int64s([-1, count, headDim])]);
      return b.node("Transpose", [split], { attributes: { perm: [1, 0, 2] } });
    };
    const present = (past: string, fresh: string, as: string) => {
      b.input(past, "float32", [kvHeads, "past", headDim]);
      const kept = b.node("Slice", [past, b.int64s([0]), DEVICE_SEGMENT.keep, b.int64s([1])]);
      const all = b.node("Concat", [kept, byHead(fresh, kvHeads)], { attributes: { axis: 1 }, as });
      b.output(all, "float32", [kvHeads, "present", headDim]);
      return all;
    };
    const keys = present(DEVICE_SEGMENT.pastK(layer), k, DEVICE_SEGMENT.presentK(layer));
    const values = present(DEVICE_SEGMENT.pastV(layer), v, DEVICE_SEGMENT.presentV(layer));
    const query = b.node("Reshape", [byHead(q, heads), b.int64s([kvHeads, -1, headDim])]);
    const scores = b.node("FusedMatMul", [query, keys], { attributes: { transB: 1, alpha }, domain: MICROSOFT });
    const masked = b.node("Add", [scores, DEVICE_SEGMENT.mask]);
    const context = b.node("MatMul", [b.node("Softmax", [masked], { attributes: { axis: -1 } }), values]);
    const split = b.node("Reshape", [context, b.int64s([heads, -1, headDim])]);
    const bySlot = b.node("Transpose", [split], { attributes: { perm: [1, 0, 2] } });
    return b.node("Reshape", [bySlot, b.int64s([1, -1, heads * headDim])]);
  };
}
