import { z } from "zod";

/** How a token's depth is decided. `speculative` drafts shallow and verifies at the target depth. */
export const ExitPolicyName = z.enum(["fixed", "confidence", "speculative"]);
export type ExitPolicyName = z.infer<typeof ExitPolicyName>;

/** Why the request ran at its depth. */
export const DepthReason = z.enum(["requested", "plan", "budget", "load"]);
export type DepthReason = z.infer<typeof DepthReason>;

/** A count of layers. The upper bound only keeps nonsense out; whether an exit exists there is the checkpoint's answer. */
export const Depth = z.int().min(1).max(1024);

/** The `fathom` field of a request: the depth dial. Every part is optional. */
export const FathomRequest = z.strictObject({
  /** Depth of every token (`fixed`), or the deepest that a token may use: the target (`confidence`, `speculative`). */
  depth: z
    .union([Depth, z.literal("auto")], { error: 'must be a positive whole number of layers or "auto"' })
    .optional(),
  exit: ExitPolicyName.optional(),
  /**
   * Confidence only. The top probability with which a token stops at an exit: one number for every exit, or the
   * checkpoint's own per exit. Default "calibrated".
   */
  threshold: z
    .union([z.number().min(0).max(1), z.literal("calibrated")], {
      error: 'must be a probability from 0 to 1 or "calibrated"',
    })
    .optional(),
  /** Bounds for "auto"; with `confidence` also the shallowest exit of a token, with `speculative` the draft's exit. */
  min_depth: Depth.optional(),
  max_depth: Depth.optional(),
  per_token_layers: z.boolean().optional(),
});
export type FathomRequest = z.infer<typeof FathomRequest>;

const milliseconds = z.number().min(0);

export const FathomTiming = z.object({
  queue_ms: milliseconds,
  prefill_ms: milliseconds,
  time_to_first_token_ms: milliseconds,
  decode_ms: milliseconds,
  total_ms: milliseconds,
  inter_token_ms_mean: milliseconds,
  tokens_per_second: z.number().min(0),
});
export type FathomTiming = z.infer<typeof FathomTiming>;

/** Layers used by the generated tokens of one answer. */
export const FathomLayers = z.object({
  total: z.int().min(0),
  mean: z.number().min(0),
  min: z.int().min(0),
  max: z.int().min(0),
  histogram: z.record(z.string(), z.int().min(0)),
  per_token: z.array(z.int().min(1)).optional(),
  /** Speculative only: the draft's exit, tokens proposed there, and those of them that the target depth accepted. */
  draft: z.object({ depth: Depth, proposed: z.int().min(0), accepted: z.int().min(0) }).optional(),
});
export type FathomLayers = z.infer<typeof FathomLayers>;

export const FathomCost = z.object({ layer_tokens: z.int().min(0), micro_usd: z.int().min(0) });
export type FathomCost = z.infer<typeof FathomCost>;

/** The `fathom` field of a response (or of a stream's last chunk). */
export const FathomResponse = z.object({
  /** Depth at which a token was decided at the latest. */
  depth: Depth,
  /** The policy that ran: where only one exit is allowed, `fixed` whatever was asked for. */
  exit: ExitPolicyName,
  reason: DepthReason,
  layers: FathomLayers,
  timing: FathomTiming,
  cost: FathomCost,
});
export type FathomResponse = z.infer<typeof FathomResponse>;

/** Sums up the depths at which an answer's tokens were decided. An empty answer has min, max and mean 0. */
export function summarizeLayers(layersUsed: readonly number[], perToken: boolean): FathomLayers {
  const histogram: Record<string, number> = {};
  let total = 0;
  let min = Number.POSITIVE_INFINITY;
  let max = 0;
  for (const layers of layersUsed) {
    total += layers;
    min = Math.min(min, layers);
    max = Math.max(max, layers);
    histogram[layers] = (histogram[layers] ?? 0) + 1;
  }
  const count = layersUsed.length;
  return {
    total,
    mean: count === 0 ? 0 : total / count,
    min: count === 0 ? 0 : min,
    max,
    histogram,
    ...(perToken ? { per_token: [...layersUsed] } : {}),
  };
}
