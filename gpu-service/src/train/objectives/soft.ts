import type { Objective } from "./objective.ts";

/** Sorted fine-tuning: the mean over all exits in every step (Sorted LLaMA, section 3.2). */
export const soft: Objective = (exits) => exits.map((depth) => ({ depth, weight: 1 / exits.length }));
