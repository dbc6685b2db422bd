import { parametersAt } from "@fathom/shared";
import type { CheckpointHeader } from "./checkpoint-writer.ts";

/** The checkpoint's README: what it is, where it comes from, which exits it has. Front matter as Hugging Face reads it. */
export function modelCard(header: CheckpointHeader): string {
  const { architecture: a, provenance, quantization } = header;
  const license = provenance.license ?? "";
  const exits = header.exits.map((depth) => `| ${depth} | ${(parametersAt(a, depth) / 1e6).toFixed(1)} M |`);
  return `---
license: ${/^[a-z0-9._-]+$/i.test(license) ? license : "other"}
library_name: fathom
---

# ${header.name}

A LLaMA model of ${a.layers} layers as a nested checkpoint: one copy of the weights, served at any of its exits.

- Source: ${provenance.source}
- Licence: ${license || "not stated by the source"}
- Created: ${provenance.created}
- Weights: layers ${quantization.layers}, embedding ${quantization.embedding}, head ${a.tied ? "tied to the embedding" : quantization.head}

Importing changes the storage only. Exits answer well only if the model was trained to stop there.

| exit | parameters |
|---|---|
${exits.join("\n")}
`;
}
