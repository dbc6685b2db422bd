import type { DepthProfile, ExitSet } from "@fathom/shared";

/** What running at an exit costs and whether it is worth it, beside the other exits of the checkpoint. */
export interface ExitValue {
  depth: number;
  /** Time of a token there as a share of full depth's, 0 to 1; never less than that of a shallower exit. */
  time: number;
  /** A shallower exit is as good: nobody is sent here who did not ask for it. */
  pointless: boolean;
}

/**
 * Values of exits under the profile that an evaluation measured. Where the profile does not know the time of every exit, time
 * is the share of layers; where it knows neither agreement nor loss of every exit, none counts as pointless. Full depth is
 * never pointless: it is what the others are measured by.
 */
export function exitValues(exits: ExitSet, profile: DepthProfile | undefined): ExitValue[] {
  const measured = exits.map((depth) => profile?.exits.find((exit) => exit.depth === depth));
  const times = complete(measured.map((exit) => exit?.ms_per_token)) ?? exits;
  const qualities =
    complete(measured.map((exit) => exit?.agreement)) ??
    complete(measured.map((exit) => exit?.loss))?.map((loss) => -loss);
  const slowest = Math.max(...times);
  let time = 0;
  let best = Number.NEGATIVE_INFINITY;
  return exits.map((depth, i) => {
    // A measurement that makes a deeper exit faster than a shallower one is noise.
    time = Math.max(time, (times[i] ?? 0) / slowest);
    const quality = qualities?.[i] ?? i;
    const pointless = quality <= best && i < exits.length - 1;
    best = Math.max(best, quality);
    return { depth, time, pointless };
  });
}

/** The values, when none is missing. */
function complete(values: readonly (number | undefined)[]): number[] | undefined {
  const known = values.filter((value) => value !== undefined);
  return known.length === values.length ? known : undefined;
}
