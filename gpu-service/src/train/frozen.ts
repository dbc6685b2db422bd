import { type Architecture, LAYER_MATRICES } from "@fathom/shared";
import { listParts, parseLayers } from "../checkpoint/select-matrices.ts";

/** What a run leaves as it is. A tied head and embedding are one tensor: freezing either freezes both. */
export interface Frozen {
  embeddings: boolean;
  head: boolean;
  /** The final norm. */
  norm: boolean;
  layers: ReadonlySet<number>;
}

export const NOTHING_FROZEN: Frozen = { embeddings: false, head: false, norm: false, layers: new Set() };

/**
 * Parses `embeddings,head,norm,layers:0-5`.
 * @throws RangeError that says which part is not understood or which layer does not exist.
 */
export function parseFrozen(text: string, a: Architecture): Frozen {
  const layers = new Set<number>();
  const whole = new Set<string>();
  for (const part of listParts(text)) {
    const range = parseLayers(part, a);
    if (range) {
      for (const layer of range) layers.add(layer);
    } else if (part === "embeddings" || part === "head" || part === "norm") {
      whole.add(part);
    } else {
      throw new RangeError(`'${part}' is none of embeddings, head, norm, layers:FROM-TO`);
    }
  }
  const embeddings = whole.has("embeddings") || (a.tied && whole.has("head"));
  return { embeddings, head: whole.has("head") || (a.tied && embeddings), norm: whole.has("norm"), layers };
}

/** Names of the tensors that a run leaves as they are. */
export function frozenTensors(frozen: Frozen): Set<string> {
  const names = new Set<string>();
  if (frozen.embeddings) names.add("embed");
  if (frozen.head) names.add("head");
  if (frozen.norm) names.add("norm");
  for (const layer of frozen.layers) {
    for (const tensor of ["attn_norm", "mlp_norm", ...LAYER_MATRICES]) names.add(`layers.${layer}.${tensor}`);
  }
  return names;
}

/** The lowest layer whose input or weights need a gradient; the number of layers when only norm or head train. */
export function lowestTrained(frozen: Frozen, a: Architecture): number {
  if (!frozen.embeddings) return 0;
  let layer = 0;
  while (layer < a.layers && frozen.layers.has(layer)) layer++;
  return layer;
}
