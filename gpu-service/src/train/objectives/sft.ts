import type { Objective } from "./objective.ts";

/** Plain fine-tuning: the full depth only. */
export const sft: Objective = (exits) => exits.slice(-1).map((depth) => ({ depth, weight: 1 }));
