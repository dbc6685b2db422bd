import { ApiError, type ExitSet, exitsBetween, type FathomRequest, type Manifest, requireExit } from "@fathom/shared";
import type { EngineRequest, ExitPolicy } from "../engine/types.ts";
import { bestDraftDepth } from "./draft-depth.ts";

/** The part of an engine's request that decides the layers of each token. */
export type ChosenPolicy = Pick<EngineRequest, "minDepth"> & { policy: ExitPolicy };

/** What a checkpoint knows of its exits. */
type ExitKnowledge = Pick<Manifest, "thresholds" | "profile">;

/**
 * The exit policy of a request whose target depth is decided.
 *
 * - `confidence`: a token stops at an exit from `min_depth` to below the target where its top probability reaches the
 *   threshold. A number holds at each of them; "calibrated", the default, takes the checkpoint's own, and passes exits that
 *   have none.
 * - `speculative`: drafts at `min_depth`, or where `bestDraftDepth` says, and verifies at the target.
 *
 * Where no exit lies between the bound and the target there is nothing to decide: the policy is then `fixed`. So a load or
 * a budget that makes an answer shallower never turns a good request into a bad one.
 *
 * @param exits exits that are served, ascending
 * @param target depth that `chooseDepth` chose for the same wish
 * @throws ApiError `unsupported_exit_policy` when the checkpoint is not calibrated, `invalid_depth` for a draft at no exit.
 */
export function choosePolicy(
  exits: ExitSet,
  wish: FathomRequest | undefined,
  target: number,
  knowledge: ExitKnowledge,
): ChosenPolicy {
  switch (wish?.exit) {
    case "confidence":
      return confidence(exits, wish, target, knowledge);
    case "speculative":
      return { policy: speculative(exits, wish, target, knowledge) };
    default:
      return { policy: { type: "fixed" } };
  }
}

function confidence(exits: ExitSet, wish: FathomRequest, target: number, { thresholds }: ExitKnowledge): ChosenPolicy {
  const threshold = wish.threshold ?? "calibrated";
  if (threshold === "calibrated" && !thresholds) {
    throw new ApiError(
      "unsupported_exit_policy",
      "'fathom.threshold': this checkpoint has no calibrated thresholds; give a number such as 0.9, or run 'fathom calibrate'",
      { param: "fathom.threshold" },
    );
  }
  const below = exitsBetween(exits, wish.min_depth ?? 1, target - 1);
  const [shallowest] = below;
  if (shallowest === undefined) return { policy: { type: "fixed" } };
  const known = below.flatMap((depth): [number, number][] => {
    const value = threshold === "calibrated" ? thresholds?.[depth] : threshold;
    return value === undefined ? [] : [[depth, value]];
  });
  return { minDepth: shallowest, policy: { type: "confidence", thresholds: Object.fromEntries(known) } };
}

function speculative(exits: ExitSet, wish: FathomRequest, target: number, { profile }: ExitKnowledge): ExitPolicy {
  const named = wish.min_depth === undefined ? undefined : requireExit(exits, wish.min_depth, "fathom.min_depth");
  if (named === target) return { type: "fixed" };
  const draftDepth = named ?? bestDraftDepth(exits, target, profile);
  return draftDepth === undefined ? { type: "fixed" } : { type: "speculative", draftDepth };
}
