import type { Manifest } from "@fathom/shared";
import type { ExportDtype } from "./dtype.ts";

/** The export's README. Its front matter carries the licence, so that an import finds it again. */
export function exportCard(manifest: Manifest, dtype: ExportDtype): string {
  const { name, architecture: a, exits, provenance, quantization: q } = manifest;
  const license = provenance.license ?? "";
  const heads = manifest.exit_heads ?? [];
  const dropped =
    heads.length === 0 ? "" : ` The own heads of the exits ${heads.join(", ")} are left out: it knows one head.`;
  const stored = [...new Set([q.layers, q.embedding, ...(a.tied ? [] : [q.head])])].join(", ");
  return `---
license: ${/^[a-z0-9._-]+$/i.test(license) ? license : "other"}
library_name: transformers
---

# ${name}

A LLaMA model of ${a.layers} layers, written from a nested checkpoint that stored ${stored} weights; here they are ${dtype}.

- Source: ${provenance.source}
- Licence: ${license || "not stated by the source"}
- Notes: ${provenance.notes ?? "none"}

transformers runs all ${a.layers} layers.${dropped} The exits of the nested checkpoint are ${exits.join(", ")}; to get it back:

    fathom import . --out DIR --exits ${exits.join(",")} --weights fp32
`;
}
