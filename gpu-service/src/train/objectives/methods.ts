import { ict } from "./ict.ts";
import { lite } from "./lite.ts";
import type { Objective } from "./objective.ts";
import { sft } from "./sft.ts";
import { soft } from "./soft.ts";
import { sortednet } from "./sortednet.ts";

/** Objectives by the name that `--method` takes. */
export const METHODS = { sft, soft, sortednet, lite, ict } satisfies Record<string, Objective>;
export type Method = keyof typeof METHODS;
export const METHOD_NAMES = Object.keys(METHODS) as [Method, ...Method[]];
