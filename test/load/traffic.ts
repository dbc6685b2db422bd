/** Times of a Poisson process whose rate changes over time, by thinning (Lewis and Shedler 1979). */
export function arrivals(
  rateAt: (second: number) => number,
  highest: number,
  seconds: number,
  random: () => number,
): number[] {
  const times: number[] = [];
  for (let t = -Math.log(1 - random()) / highest; t < seconds; t += -Math.log(1 - random()) / highest) {
    if (random() * highest < rateAt(t)) times.push(t);
  }
  return times;
}

/** A ramp from `low` to `high` and back: `low` for a tenth of the time at both ends, `high` for a fifth in the middle. */
export function ramp(low: number, high: number, seconds: number): (second: number) => number {
  return (second) => {
    const x = Math.min(second, seconds - second) / seconds;
    return low + (high - low) * Math.min(1, Math.max(0, (x - 0.1) / 0.3));
  };
}
