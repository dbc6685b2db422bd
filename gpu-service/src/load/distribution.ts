import { z } from "zod";

/** A sample summed up. All figures are in the unit of the sample. */
export const Distribution = z.object({
  count: z.int().min(1),
  mean: z.number(),
  min: z.number(),
  p50: z.number(),
  p90: z.number(),
  p99: z.number(),
  max: z.number(),
});
export type Distribution = z.infer<typeof Distribution>;

/**
 * The percentile of an ascending sample by linear interpolation between the two nearest order statistics: rank
 * `p / 100 · (n - 1)`, counted from 0. Hyndman and Fan's type 7, NumPy's default and so vLLM's; figures are comparable.
 * @param sorted ascending, at least one value
 * @param p from 0 to 100
 */
export function percentile(sorted: ArrayLike<number>, p: number): number {
  const rank = (p / 100) * (sorted.length - 1);
  const below = sorted[Math.floor(rank)] ?? Number.NaN;
  const above = sorted[Math.ceil(rank)] ?? Number.NaN;
  return below + (above - below) * (rank - Math.floor(rank));
}

/** Sums up a sample in any order; null for an empty one. */
export function summarise(values: readonly number[]): Distribution | null {
  if (values.length === 0) return null;
  const sorted = Float64Array.from(values).sort();
  const at = (p: number) => percentile(sorted, p);
  return {
    count: sorted.length,
    mean: sorted.reduce((sum, value) => sum + value, 0) / sorted.length,
    min: at(0),
    p50: at(50),
    p90: at(90),
    p99: at(99),
    max: at(100),
  };
}
