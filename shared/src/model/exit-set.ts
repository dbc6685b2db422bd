import { z } from "zod";
import { ApiError } from "../api/errors.ts";

/** The depths at which a checkpoint may stop, ascending and without repeats; the last one is the full model. */
export const ExitSet = z
  .array(z.int().min(1).max(1024))
  .min(1)
  .refine((exits) => exits.every((depth, i) => i === 0 || depth > (exits[i - 1] ?? 0)), {
    error: "exits must be ascending and without repeats",
  });
export type ExitSet = z.infer<typeof ExitSet>;

/** The deepest exit: the full model. */
export function fullDepth(exits: ExitSet): number {
  const last = exits.at(-1);
  if (last === undefined) throw new RangeError("an exit set has at least one exit");
  return last;
}

/**
 * Returns `depth` if the checkpoint has an exit there.
 * @throws ApiError `invalid_depth` that says which exits exist.
 */
export function requireExit(exits: ExitSet, depth: number, param = "fathom.depth"): number {
  if (exits.includes(depth)) return depth;
  throw new ApiError("invalid_depth", `'${param}': there is no exit at depth ${depth}; exits are ${exits.join(", ")}`, {
    param,
  });
}

/** Exits within a range, ascending. */
export function exitsBetween(exits: ExitSet, minDepth: number, maxDepth: number): number[] {
  return exits.filter((depth) => depth >= minDepth && depth <= maxDepth);
}

/** Parses `12,18,24,30`. @throws RangeError when the text is not a list of ascending layer counts. */
export function parseExits(text: string): ExitSet {
  const parts = text.split(",").map((part) => part.trim());
  const result = ExitSet.safeParse(parts.map((part) => (/^\d+$/.test(part) ? Number(part) : Number.NaN)));
  if (!result.success) throw new RangeError(`'${text}' is not a list of ascending depths such as 12,18,24,30`);
  return result.data;
}
