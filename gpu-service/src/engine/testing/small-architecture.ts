import type { Architecture } from "@fathom/shared";
import type { LayerRange } from "../kv-layout.ts";

/** A shape small enough that every value of its K/V can be compared. */
export const SMALL: Architecture = {
  type: "llama",
  hidden_size: 8,
  intermediate_size: 16,
  layers: 6,
  heads: 4,
  kv_heads: 2,
  head_dim: 2,
  vocab_size: 16,
  rms_norm_eps: 1e-5,
  context_length: 4096,
  rope: { theta: 10_000 },
  tied: true,
};

/** Its exits, and the layers between them. */
export const SMALL_EXITS = [1, 3, 6] as const;
export const SMALL_SEGMENTS: readonly LayerRange[] = [
  { from: 0, to: 1 },
  { from: 1, to: 3 },
  { from: 3, to: 6 },
];
