import { ApiError, type ExitSet, exitsBetween, type FathomRequest, requireExit } from "@fathom/shared";

/**
 * The exit at which a request runs, or at the latest decides a token: the one it names, or the deepest one within its bounds
 * and the caller's.
 * @param exits exits that are served, ascending
 * @param wish the request's `fathom` field
 * @param maxDepth deepest layer that the caller may use
 * @throws ApiError `invalid_depth` when no exit fits the request, `depth_not_allowed` when the caller may not go that deep.
 */
export function chooseDepth(exits: ExitSet, wish: FathomRequest | undefined, maxDepth: number): number {
  const { depth = "auto", min_depth: lowest = 1, max_depth: highest = Number.POSITIVE_INFINITY } = wish ?? {};
  const fitting = exitsBetween(exits, lowest, highest);
  if (fitting.length === 0) {
    const param = wish?.min_depth === undefined ? "fathom.max_depth" : "fathom.min_depth";
    throw new ApiError("invalid_depth", `'${param}': no exit lies within the bounds; exits are ${exits.join(", ")}`, {
      param,
    });
  }
  if (depth !== "auto") {
    requireExit(exits, depth);
    if (!fitting.includes(depth)) {
      throw new ApiError("invalid_depth", `'fathom.depth': ${depth} lies outside min_depth and max_depth`, {
        param: "fathom.depth",
      });
    }
  }
  const wanted = depth === "auto" ? fitting.findLast((exit) => exit <= maxDepth) : depth;
  if (wanted !== undefined && wanted <= maxDepth) return wanted;
  const param = depth === "auto" && wish?.min_depth !== undefined ? "fathom.min_depth" : "fathom.depth";
  throw new ApiError("depth_not_allowed", `'${param}': this key may use at most ${maxDepth} layers`, { param });
}
