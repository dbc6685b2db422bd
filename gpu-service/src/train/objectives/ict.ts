import type { Objective } from "./objective.ts";

/** Intermediate classifier tuning: every exit but the last learns, each with a head of its own, so the losses just add up. */
export const ict: Objective = (exits) => exits.slice(0, -1).map((depth) => ({ depth, weight: 1 }));
