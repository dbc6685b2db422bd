import type { ServedModel } from "../text/served-model.ts";

/** The name that every service answers to, whatever its checkpoint is called. */
export const MODEL_ALIAS = "fathom";

/** Whether a client that asks for `name` means this model. */
export function answersTo({ manifest }: ServedModel, name: string): boolean {
  return name === manifest.name || name === MODEL_ALIAS;
}
