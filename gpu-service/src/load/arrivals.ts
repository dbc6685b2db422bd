import { randomGamma } from "d3-random";

export interface ArrivalProcess {
  /** Mean requests per second. */
  rate: number;
  /**
   * Shape of the gamma-distributed gaps, as in `vllm bench serve`: 1 is a Poisson process, less is burstier, more is more
   * even; the rate stays the same.
   */
  burstiness: number;
}

/**
 * When requests of an open loop are meant to be sent, whatever becomes of the earlier ones: ascending milliseconds after
 * the start. The first comes one gap after it, so that the mean of all gaps is `1000 / rate`.
 * @param random uniform in [0, 1): the same stream gives the same times
 */
export function arrivalTimes(count: number, { rate, burstiness }: ArrivalProcess, random: () => number): number[] {
  const gap = randomGamma.source(random)(burstiness, 1000 / (rate * burstiness));
  let time = 0;
  return Array.from({ length: count }, () => {
    time += gap();
    return time;
  });
}
