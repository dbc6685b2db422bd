import { z } from "zod";

/** What a service-level objective may bound: the vocabulary of `vllm bench serve --goodput`. */
export const SLO_METRICS = ["ttft", "tpot", "e2e"] as const;
type SloMetric = (typeof SLO_METRICS)[number];

/** Longest acceptable value per metric, milliseconds. */
export const Slo = z.partialRecord(z.enum(SLO_METRICS), z.number().gt(0));
export type Slo = z.infer<typeof Slo>;

/** The latencies of one answered request, milliseconds; null where there is none to speak of. */
export interface Latencies {
  ttft_ms: number | null;
  tpot_ms: number | null;
  e2e_ms: number;
}

/**
 * Reads `ttft:500,tpot:50,e2e:4000`, in milliseconds; `e2el` is vLLM's name of `e2e`.
 * @throws RangeError that names the part at fault.
 */
export function parseSlo(text: string): Slo {
  const slo: Slo = {};
  for (const part of text.split(",")) {
    const [, name = "", bound = ""] = /^\s*(ttft|tpot|e2el?):(\d+\.?\d*|\.\d+)\s*$/.exec(part) ?? [];
    if (!(Number(bound) > 0)) throw new RangeError(`'${part.trim()}' is not a bound such as ttft:500`);
    const metric = (name === "e2el" ? "e2e" : name) as SloMetric;
    if (slo[metric] !== undefined) throw new RangeError(`${metric} is bounded twice`);
    slo[metric] = Number(bound);
  }
  return slo;
}

/** Whether an answer kept every bound. A bound on something that it has none of, as TPOT with one token, is kept. */
export function meetsSlo(slo: Slo, { ttft_ms, tpot_ms, e2e_ms }: Latencies): boolean {
  const measured: Record<SloMetric, number | null> = { ttft: ttft_ms, tpot: tpot_ms, e2e: e2e_ms };
  return SLO_METRICS.every((metric) => (measured[metric] ?? 0) <= (slo[metric] ?? Number.POSITIVE_INFINITY));
}
