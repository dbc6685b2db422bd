import { randomStream } from "../random/random-stream.ts";

const RESAMPLES = 2000;

/**
 * Percentile interval of a mean: values are drawn anew with replacement, the middle `level` of the means is the interval. It
 * describes how far the mean moves with the prompts; it guarantees nothing, and has no width where all values are equal.
 */
export function bootstrapInterval(values: Float64Array, level: number, seed: number): [low: number, high: number] {
  const random = randomStream(seed, 0xb007);
  const means = Float64Array.from({ length: RESAMPLES }, () => {
    let sum = 0;
    for (let i = 0; i < values.length; i++) sum += values[Math.floor(random() * values.length)] ?? 0;
    return sum / values.length;
  }).sort();
  const at = (share: number) => means[Math.round(share * (RESAMPLES - 1))] ?? 0;
  return [at((1 - level) / 2), at((1 + level) / 2)];
}
