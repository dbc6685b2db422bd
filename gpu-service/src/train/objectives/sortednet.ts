import { shuffled } from "../../random/random-stream.ts";
import type { Objective } from "./objective.ts";

/**
 * SortedNet: the mean over one exit, or a few, drawn anew for every step (SortedNet, algorithm 1); with `weights` the weighted
 * mean of those drawn.
 */
export const sortednet: Objective = (exits, { exitsPerStep, alwaysFull, weights }, random) => {
  const always = alwaysFull ? exits.slice(-1) : [];
  const pool = alwaysFull ? exits.slice(0, -1) : exits;
  const drawn = shuffled(pool, random).slice(0, Math.max(0, exitsPerStep - always.length));
  const chosen = [...drawn, ...always].sort((x, y) => x - y);
  const weighed = chosen.map((depth) => ({ depth, weight: weights?.[exits.indexOf(depth)] ?? 1 }));
  const sum = weighed.reduce((total, { weight }) => total + weight, 0);
  return weighed.map(({ depth, weight }) => ({ depth, weight: weight / sum }));
};
