/** Upper bounds of vLLM's histogram buckets (`vllm/v1/metrics/loggers.py`), with finer ones below where our exits need them. */
export const TIME_TO_FIRST_TOKEN_SECONDS = [
  0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80, 160, 640, 2560,
];

export const TIME_PER_TOKEN_SECONDS = [
  0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1, 2.5, 5, 7.5, 10, 20, 40, 80,
];

export const REQUEST_SECONDS = [
  0.01, 0.05, 0.1, 0.3, 0.5, 0.8, 1, 1.5, 2, 2.5, 5, 10, 15, 20, 30, 40, 50, 60, 120, 240, 480, 960, 1920, 7680,
];

/** 1, 2, 5, 10, 20, 50, … up to a bound. */
export function oneTwoFive(max: number): number[] {
  const buckets: number[] = [];
  for (let power = 1; power <= max; power *= 10) {
    buckets.push(...[power, 2 * power, 5 * power].filter((bound) => bound <= max));
  }
  return buckets;
}
