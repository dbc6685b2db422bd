export interface Schedule {
  kind: "constant" | "cosine";
  /** Steps over which the rate rises linearly. */
  warmup: number;
  /** Steps of the whole run. */
  steps: number;
}

/** Learning rate of step `step` (from 0): up to `peak` within the warm-up, then constant, or half a cosine down to zero. */
export function learningRate(peak: number, step: number, { kind, warmup, steps }: Schedule): number {
  if (step < warmup) return (peak * (step + 1)) / (warmup + 1);
  switch (kind) {
    case "constant":
      return peak;
    case "cosine": {
      const progress = Math.min(1, (step - warmup) / Math.max(1, steps - warmup));
      return peak * 0.5 * (1 + Math.cos(Math.PI * progress));
    }
  }
}
