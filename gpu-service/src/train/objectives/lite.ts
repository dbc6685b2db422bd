import type { Objective } from "./objective.ts";

/** LITE: Σ w·L / Σ w over all exits; deeper ones weigh more (1, 2, … without `weights`) (LITE, section 3.2). */
export const lite: Objective = (exits, { weights = exits.map((_, i) => i + 1) }) => {
  const sum = weights.reduce((x, y) => x + y, 0);
  return exits.map((depth, i) => ({ depth, weight: (weights[i] ?? 0) / sum }));
};
