import { type Architecture, LAYER_MATRICES } from "@fathom/shared";

/** Parses `layers:0-5` or `layers:7`; undefined when it is something else. @throws RangeError when a layer does not exist. */
export function parseLayers(part: string, { layers }: Architecture): number[] | undefined {
  const range = /^layers:(\d{1,4})(?:-(\d{1,4}))?$/.exec(part);
  if (!range) return undefined;
  const from = Number(range[1]);
  const to = Number(range[2] ?? range[1]);
  if (from > to || to >= layers) throw new RangeError(`'${part}': the layers are 0-${layers - 1}, the lowest first`);
  return Array.from({ length: to - from + 1 }, (_, i) => from + i);
}

/** The parts of a comma-separated list, without empty ones. */
export function listParts(text: string): string[] {
  return text
    .split(",")
    .map((part) => part.trim())
    .filter((part) => part !== "");
}

/**
 * Names of the layer matrices that a list such as `layers:0-5,attn.o` names: all of some layers, one of all layers.
 * @throws RangeError that says which part is not understood or which layer does not exist.
 */
export function selectMatrices(text: string, a: Architecture): Set<string> {
  const names = new Set<string>();
  for (const part of listParts(text)) {
    const layers = parseLayers(part, a);
    const matrix = LAYER_MATRICES.find((known) => known === part);
    if (!layers && !matrix) throw new RangeError(`'${part}' is none of ${LAYER_MATRICES.join(", ")}, layers:FROM-TO`);
    for (const layer of layers ?? Array.from({ length: a.layers }, (_, i) => i)) {
      for (const name of matrix ? [matrix] : LAYER_MATRICES) names.add(`layers.${layer}.${name}`);
    }
  }
  return names;
}
