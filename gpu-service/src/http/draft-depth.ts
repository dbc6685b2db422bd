import type { DepthProfile, ExitSet } from "@fathom/shared";
import { expectedTokens, MAX_DRAFT } from "../engine/speculation.ts";

/**
 * The exit at which to draft for a target depth: where the profile expects the fastest decoding, or the shallowest exit when
 * the profile does not say how often its exits agree with the full depth. Undefined below the shallowest exit.
 */
export function bestDraftDepth(exits: ExitSet, target: number, profile: DepthProfile | undefined): number | undefined {
  const below = exits.filter((depth) => depth < target);
  const msAtTarget = profile?.exits.find(({ depth }) => depth === target)?.ms_per_token;
  let best: { depth: number; speedup: number } | undefined;
  for (const { depth, agreement, ms_per_token } of profile?.exits ?? []) {
    if (agreement === undefined || !below.includes(depth)) continue;
    const cost = msAtTarget === undefined ? depth / target : ms_per_token / msAtTarget;
    const speedup = expectedSpeedup(agreement, cost);
    if (!best || speedup > best.speedup) best = { depth, speedup };
  }
  return best?.depth ?? below[0];
}

/**
 * Expected speed-up over plain decoding with the best draft length k: (1 − a^(k+1)) / ((1 − a)(k·c + 1)), theorem 3.8 of
 * Leviathan et al., "Fast Inference from Transformers via Speculative Decoding" (2023). Verifying k tokens is taken to cost
 * as much as decoding one.
 * @param a chance that a drafted token is accepted
 * @param c time of a drafted token, of a token at the target
 */
function expectedSpeedup(a: number, c: number): number {
  let best = 0;
  for (let k = 1; k <= MAX_DRAFT; k++) best = Math.max(best, expectedTokens(a, k) / (k * c + 1));
  return best;
}
