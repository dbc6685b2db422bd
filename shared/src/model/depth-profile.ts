import { z } from "zod";

/** What one exit is worth and what it costs, as an evaluation run measured it. */
export const DepthProfileExit = z.object({
  depth: z.int().min(1),
  /** Decode time of one token at batch 1, milliseconds. */
  ms_per_token: z.number().positive(),
  /** Share of positions whose top-1 token equals full depth's, 0..1. */
  agreement: z.number().min(0).max(1).optional(),
  /** Held-out cross-entropy, nats per token. */
  loss: z.number().min(0).optional(),
});

/** Published by an evaluation run, read by the router. */
export const DepthProfile = z.object({
  version: z.int().min(1),
  measured_on: z.string(),
  exits: z.array(DepthProfileExit).min(1),
});
export type DepthProfile = z.infer<typeof DepthProfile>;
