import type { ExitTerm } from "../head-runner.ts";

/**
 * Gives the share `share` of every term's weight to KL(teacher ‖ exit): weight · ((1 − share) · CE + share · KL) (Hinton et al.
 * 2015). An exit at full depth that is its own teacher keeps its cross-entropy: it has nothing to learn from itself.
 */
export function distill(terms: readonly ExitTerm[], share: number, ownFullDepth: number | undefined): ExitTerm[] {
  return terms.map(({ depth, weight }) =>
    depth === ownFullDepth ? { depth, weight } : { depth, weight: weight * (1 - share), distillWeight: weight * share },
  );
}
