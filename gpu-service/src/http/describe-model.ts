import { bytesAt, fullDepth, type ModelDescription, parametersAt } from "@fathom/shared";
import type { ServedModel } from "../text/served-model.ts";

/** The model as `/v1/models` shows it: the exits that are served, with what each of them runs and holds. */
export function describeModel({ manifest, engine }: ServedModel): ModelDescription {
  const { architecture } = manifest;
  const { exits, contextLength } = engine.info;
  const deepest = fullDepth(exits);
  const created = Date.parse(manifest.provenance.created);
  return {
    id: manifest.name,
    object: "model",
    created: Number.isNaN(created) ? 0 : Math.floor(created / 1000),
    owned_by: "fathom",
    fathom: {
      layers: deepest,
      context_length: contextLength,
      exits: exits.map((depth) => ({
        depth,
        parameters: parametersAt(architecture, depth, manifest.exit_heads),
        bytes: bytesAt(manifest, depth),
      })),
      bytes: bytesAt(manifest, deepest),
      parameters: parametersAt(architecture, deepest, manifest.exit_heads),
      ...(manifest.profile ? { profile: manifest.profile } : {}),
    },
  };
}
