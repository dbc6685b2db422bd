import { ExitPolicyName, type FathomResponse } from "@fathom/shared";
import { z } from "zod";
import { Distribution, summarise } from "./distribution.ts";
import { AskedDepth, type RequestRecord } from "./request-record.ts";
import { meetsSlo, Slo } from "./slo.ts";

const Count = z.int().min(0);
const Mix = <T extends z.ZodType>(value: T) => z.array(z.object({ value, share: z.number().gt(0).max(1) })).nullable();

/** How a run was set up: enough to repeat it. */
export const BenchSettings = z.object({
  url: z.string(),
  endpoint: z.enum(["chat", "completions"]),
  model: z.string(),
  /** Distinct prompts that requests were taken from. */
  prompts: Count,
  /** Requests per second of an open loop; null is a closed loop. */
  rate: z.number().gt(0).nullable(),
  /** Shape of the gaps between arrivals; 1 is Poisson. */
  burstiness: z.number().gt(0),
  /** Most requests in flight; null is no bound. */
  concurrency: Count.nullable(),
  requests: Count,
  warmup: Count,
  max_seconds: z.number().nullable(),
  timeout_seconds: z.number(),
  max_tokens: Count,
  temperature: z.number(),
  seed: Count,
  depth_mix: Mix(AskedDepth),
  exit_mix: Mix(ExitPolicyName),
  threshold: z.union([z.number(), z.literal("calibrated")]).nullable(),
  slo: Slo.nullable(),
});
export type BenchSettings = z.infer<typeof BenchSettings>;

const LatencyReport = z.object({
  /** From the intended send to the first text. */
  ttft_ms: Distribution.nullable(),
  /** Mean time per output token after the first, one value per request. */
  tpot_ms: Distribution.nullable(),
  /** Gaps between chunks with text, of all requests together. */
  itl_ms: Distribution.nullable(),
  /** From the intended send to the end of the stream. */
  e2e_ms: Distribution.nullable(),
});

/** What only a Fathom service tells; over the answers that told it. */
const FathomReport = z.object({
  requests: Count,
  /** Over generated tokens. */
  layers_mean: z.number(),
  /** Generated tokens by layers used. */
  layers_histogram: z.record(z.string(), Count),
  /** Σ of what the answers cost, prompts included. */
  layer_tokens: Count,
  layer_tokens_per_second: z.number(),
  micro_usd: Count,
  /** The wait for a place in the batch, by the server's clock. */
  queue_ms: Distribution.nullable(),
  /** Speculation; null without any. */
  draft: z.object({ proposed: Count, accepted: Count, acceptance: z.number() }).nullable(),
});

/** The outcome of a run. Latencies are over answers that came whole; throughput is over the whole run. */
export const BenchReport = z.object({
  format: z.literal("fathom-bench-1"),
  started_at: z.iso.datetime(),
  settings: BenchSettings,
  interrupted: z.boolean(),
  /** To the end of the last request. */
  duration_s: z.number(),
  requests: z.object({
    sent: Count,
    ok: Count,
    refused: Count,
    failed: Count,
    cut: Count,
    /** Due in an open loop and not sent when sending stopped: latencies know nothing of them. */
    overdue: Count,
  }),
  errors: z.array(
    z.object({
      outcome: z.enum(["refused", "failed"]),
      status: z.int().nullable(),
      code: z.string(),
      count: Count,
      /** Of the first one. */
      message: z.string(),
    }),
  ),
  tokens: z.object({
    /** Null where the server gives no usage. */
    prompt: Count.nullable(),
    output: Count,
    /** `chunks`: at least one answer had no usage, and its chunks were counted instead. */
    from: z.enum(["usage", "fathom", "chunks"]),
  }),
  throughput: z.object({
    requests_per_second: z.number(),
    output_tokens_per_second: z.number(),
    total_tokens_per_second: z.number().nullable(),
  }),
  goodput: z.object({ met: Count, share: z.number(), requests_per_second: z.number() }).nullable(),
  ...LatencyReport.shape,
  /** How long after the intended time requests were sent: the client's own delay. Null in a closed loop, which has none. */
  send_late_ms: Distribution.nullable(),
  in_flight: z.object({ mean: z.number(), max: Count }),
  /** Share of the run that the client's event loop was busy: near 1 it measures itself rather than the server. */
  client_busy: z.number().min(0).max(1),
  /** Per depth and exit policy asked for; empty without a mix of several. */
  classes: z.array(
    z.object({
      depth: AskedDepth.nullable(),
      exit: ExitPolicyName.nullable(),
      sent: Count,
      ok: Count,
      output_tokens: Count,
      layers_mean: z.number().nullable(),
      ...LatencyReport.shape,
    }),
  ),
  fathom: FathomReport.nullable(),
});
export type BenchReport = z.infer<typeof BenchReport>;

export interface RunFigures {
  settings: BenchSettings;
  /** ISO 8601. */
  startedAt: string;
  interrupted: boolean;
  durationMs: number;
  overdue: number;
  /** Share of the time, 0 to 1. */
  clientBusy: number;
}

/** Sums up the records of a run. */
export function makeReport(records: readonly RequestRecord[], run: RunFigures): BenchReport {
  const { settings, startedAt, interrupted, durationMs, overdue, clientBusy } = run;
  const of = (outcome: RequestRecord["outcome"]) => records.filter((record) => record.outcome === outcome);
  const ok = of("ok");
  const seconds = durationMs / 1000;
  const perSecond = (count: number) => (seconds > 0 ? count / seconds : 0);
  const output = sum(ok, ({ output_tokens }) => output_tokens ?? 0);
  const prompt = ok.every(({ prompt_tokens }) => prompt_tokens !== null)
    ? sum(ok, ({ prompt_tokens }) => prompt_tokens ?? 0)
    : null;
  const sources = new Set(ok.map(({ tokens_from }) => tokens_from));
  return {
    format: "fathom-bench-1",
    started_at: startedAt,
    settings,
    interrupted,
    duration_s: seconds,
    requests: {
      sent: records.length,
      ok: ok.length,
      refused: of("refused").length,
      failed: of("failed").length,
      cut: of("cut").length,
      overdue,
    },
    errors: countErrors(records),
    tokens: { prompt, output, from: sources.has("chunks") ? "chunks" : sources.has("fathom") ? "fathom" : "usage" },
    throughput: {
      requests_per_second: perSecond(ok.length),
      output_tokens_per_second: perSecond(output),
      total_tokens_per_second: prompt === null ? null : perSecond(prompt + output),
    },
    goodput: settings.slo && goodput(records, settings.slo, perSecond),
    ...latencies(ok),
    send_late_ms:
      settings.rate === null ? null : summarise(records.map((record) => record.sent_at_ms - record.intended_at_ms)),
    in_flight: inFlight(records, durationMs),
    client_busy: clientBusy,
    classes: classes(records),
    fathom: fathomReport(ok, perSecond),
  };
}

function sum<T>(items: readonly T[], value: (item: T) => number): number {
  return items.reduce((total, item) => total + value(item), 0);
}

function latencies(ok: readonly RequestRecord[]): z.infer<typeof LatencyReport> {
  const of = (key: "ttft_ms" | "tpot_ms" | "e2e_ms") =>
    summarise(ok.map((record) => record[key]).filter((value) => value !== null));
  return {
    ttft_ms: of("ttft_ms"),
    tpot_ms: of("tpot_ms"),
    itl_ms: summarise(ok.flatMap(({ itl_ms }) => itl_ms)),
    e2e_ms: of("e2e_ms"),
  };
}

/** Refused and failed requests miss the objective; those that an interruption cut say nothing either way. */
function goodput(
  records: readonly RequestRecord[],
  slo: Slo,
  perSecond: (count: number) => number,
): BenchReport["goodput"] {
  const ended = records.filter(({ outcome }) => outcome !== "cut");
  const met = ended.filter(
    ({ e2e_ms, ttft_ms, tpot_ms }) => e2e_ms !== null && meetsSlo(slo, { ttft_ms, tpot_ms, e2e_ms }),
  ).length;
  return { met, share: ended.length === 0 ? 0 : met / ended.length, requests_per_second: perSecond(met) };
}

function countErrors(records: readonly RequestRecord[]): BenchReport["errors"] {
  const errors = new Map<string, BenchReport["errors"][number]>();
  for (const { outcome, status, code, message } of records) {
    if (outcome === "ok" || outcome === "cut") continue;
    const key = `${outcome} ${status} ${code}`;
    const error = errors.get(key) ?? { outcome, status, code: code ?? "error", count: 0, message: message ?? "" };
    error.count += 1;
    errors.set(key, error);
  }
  return [...errors.values()].sort((x, y) => y.count - x.count);
}

/** Requests on their way at the same time, from their real sends to their ends. */
function inFlight(records: readonly RequestRecord[], durationMs: number): BenchReport["in_flight"] {
  const changes = records
    .flatMap((record) => [
      { at: record.sent_at_ms, by: 1 },
      { at: record.ended_at_ms, by: -1 },
    ])
    // A closed loop sends when another ends: at one instant ends come first.
    .sort((x, y) => x.at - y.at || x.by - y.by);
  let now = 0;
  let max = 0;
  for (const { by } of changes) {
    now += by;
    max = Math.max(max, now);
  }
  const busy = sum(records, (record) => record.ended_at_ms - record.sent_at_ms);
  return { mean: durationMs > 0 ? busy / durationMs : 0, max };
}

function classes(records: readonly RequestRecord[]): BenchReport["classes"] {
  const groups = Map.groupBy(records, ({ depth, exit }) => `${depth} ${exit}`);
  if (groups.size < 2) return [];
  const byDepth = (depth: AskedDepth | null) => (typeof depth === "number" ? depth : Number.POSITIVE_INFINITY);
  return [...groups.values()]
    .map((group) => {
      const ok = group.filter(({ outcome }) => outcome === "ok");
      const { depth = null, exit = null } = group[0] ?? {};
      return {
        depth,
        exit,
        sent: group.length,
        ok: ok.length,
        output_tokens: sum(ok, ({ output_tokens }) => output_tokens ?? 0),
        layers_mean: meanLayers(fathoms(ok)),
        ...latencies(ok),
      };
    })
    .sort((x, y) => byDepth(x.depth) - byDepth(y.depth) || String(x.exit).localeCompare(String(y.exit)));
}

function fathoms(ok: readonly RequestRecord[]): FathomResponse[] {
  return ok.map(({ fathom }) => fathom).filter((fathom) => fathom !== null);
}

function meanLayers(answers: readonly FathomResponse[]): number | null {
  const tokens = sum(answers, ({ layers }) => sum(Object.values(layers.histogram), (count) => count));
  return tokens === 0 ? null : sum(answers, ({ layers }) => layers.total) / tokens;
}

function fathomReport(ok: readonly RequestRecord[], perSecond: (count: number) => number): BenchReport["fathom"] {
  const answers = fathoms(ok);
  if (answers.length === 0) return null;
  const histogram: Record<string, number> = {};
  for (const [depth, count] of answers.flatMap(({ layers }) => Object.entries(layers.histogram))) {
    histogram[depth] = (histogram[depth] ?? 0) + count;
  }
  const drafts = answers.flatMap(({ layers }) => layers.draft ?? []);
  const proposed = sum(drafts, (draft) => draft.proposed);
  const accepted = sum(drafts, (draft) => draft.accepted);
  const layerTokens = sum(answers, ({ cost }) => cost.layer_tokens);
  return {
    requests: answers.length,
    layers_mean: meanLayers(answers) ?? 0,
    layers_histogram: histogram,
    layer_tokens: layerTokens,
    layer_tokens_per_second: perSecond(layerTokens),
    micro_usd: sum(answers, ({ cost }) => cost.micro_usd),
    queue_ms: summarise(answers.map(({ timing }) => timing.queue_ms)),
    draft: drafts.length === 0 ? null : { proposed, accepted, acceptance: proposed === 0 ? 0 : accepted / proposed },
  };
}
