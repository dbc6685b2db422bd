import type { Distribution } from "./distribution.ts";
import type { BenchReport, BenchSettings } from "./report.ts";

/** From this share of the time on, what the client measures may be its own slowness. */
const TOO_BUSY = 0.8;
const COLUMNS = ["mean", "p50", "p90", "p99", "min", "max"] as const;

/** A report as people read it: plain text, a table of latencies, and what stands out. */
export function reportText(report: BenchReport): string {
  const { settings, requests, throughput, tokens, goodput, in_flight, client_busy } = report;
  const bad = [
    [requests.refused, "refused"],
    [requests.failed, "failed"],
    [requests.cut, "cut by the interruption"],
    [requests.overdue, "due but never sent"],
  ] as const;
  const counts = [
    `${requests.ok} ok`,
    ...bad.filter(([count]) => count > 0).map(([count, what]) => `${count} ${what}`),
  ];
  const lines = [
    ["", `${settings.model} at ${settings.url}`],
    ["load", `${loop(settings)}, ${settings.prompts} prompts, at most ${settings.max_tokens} tokens each`],
    ["requests", `${counts.join(", ")}, of ${settings.requests}, in ${report.duration_s.toFixed(1)} s`],
    [
      "in flight",
      `${in_flight.mean.toFixed(1)} on average, ${in_flight.max} at most; client busy ${percent(client_busy)} of the time` +
        (client_busy < TOO_BUSY ? "" : ": too much to trust its latencies"),
    ],
    [
      "throughput",
      `${figure(throughput.requests_per_second)} requests/s, ${figure(throughput.output_tokens_per_second)} output tokens/s` +
        (throughput.total_tokens_per_second === null
          ? ""
          : `, ${figure(throughput.total_tokens_per_second)} with prompts`),
    ],
    [
      "tokens",
      `${tokens.output} generated${tokens.prompt === null ? "" : `, ${tokens.prompt} of prompts`}` +
        (tokens.from === "chunks" ? " (no usage from the server: chunks are counted as tokens)" : ""),
    ],
    ...(goodput && settings.slo
      ? [
          [
            "goodput",
            `${figure(goodput.requests_per_second)} requests/s, ${percent(goodput.share)} within ` +
              `${Object.entries(settings.slo)
                .map(([metric, bound]) => `${metric} ${bound} ms`)
                .join(", ")}`,
          ],
        ]
      : []),
    ...fathomLines(report),
  ];
  return [
    lines.map(([name = "", text]) => (name === "" ? text : `${name.padEnd(12)}${text}`)).join("\n"),
    ...(requests.ok > 0 ? [latencyTable(report)] : []),
    ...(report.classes.length > 0 ? [classTable(report.classes)] : []),
    ...(report.errors.length > 0 ? [errorLines(report.errors)] : []),
  ].join("\n\n");
}

function loop({ rate, burstiness, concurrency }: BenchSettings): string {
  if (rate === null) return `closed loop, ${concurrency} at a time`;
  const process = burstiness === 1 ? "Poisson" : `burstiness ${burstiness}`;
  return `open loop, ${rate} requests/s, ${process}${concurrency === null ? "" : `, at most ${concurrency} at a time`}`;
}

function fathomLines({ fathom, requests }: BenchReport): string[][] {
  if (!fathom) return [];
  const depths = Object.entries(fathom.layers_histogram);
  const tokens = depths.reduce((sum, [, count]) => sum + count, 0);
  const shares = depths.map(([depth, count]) => `${depth}: ${percent(count / tokens)}`);
  const partial = fathom.requests === requests.ok ? "" : ` (told by ${fathom.requests} answers)`;
  return [
    ["layers", `${fathom.layers_mean.toFixed(1)} per token; ${shares.join(", ")}${partial}`],
    ["cost", `${figure(fathom.layer_tokens_per_second)} layer-tokens/s, ${fathom.micro_usd} micro-USD`],
    ...(fathom.draft
      ? [
          [
            "drafts",
            `${percent(fathom.draft.acceptance)} accepted: ${fathom.draft.accepted} of ${fathom.draft.proposed}`,
          ],
        ]
      : []),
  ];
}

function latencyTable({ ttft_ms, tpot_ms, itl_ms, e2e_ms, send_late_ms, fathom }: BenchReport): string {
  const rows: [string, Distribution | null | undefined][] = [
    ["TTFT", ttft_ms],
    ["TPOT", tpot_ms],
    ["ITL", itl_ms],
    ["E2E", e2e_ms],
    ["server queue", fathom?.queue_ms],
    ["sent late by", send_late_ms],
  ];
  return table(
    ["milliseconds", ...COLUMNS, "count"],
    rows.flatMap(([name, of]) =>
      of ? [[name, ...COLUMNS.map((column) => figure(of[column])), String(of.count)]] : [],
    ),
  );
}

function classTable(classes: BenchReport["classes"]): string {
  const cell = (of: Distribution | null, column: "p50" | "p99") => (of ? figure(of[column]) : "-");
  return table(
    ["asked for", "ok/sent", "layers", "TTFT p50", "p99", "TPOT p50", "p99", "E2E p50", "p99"],
    classes.map((one) => [
      [one.depth === null ? "" : `depth ${one.depth}`, one.exit ?? ""].filter((part) => part !== "").join(" "),
      `${one.ok}/${one.sent}`,
      one.layers_mean === null ? "-" : one.layers_mean.toFixed(1),
      ...[one.ttft_ms, one.tpot_ms, one.e2e_ms].flatMap((of) => [cell(of, "p50"), cell(of, "p99")]),
    ]),
  );
}

function errorLines(errors: BenchReport["errors"]): string {
  return errors
    .map(({ outcome, count, status, code, message }) => {
      const remark = message.trim() === "" ? "" : `: ${message.trim().replace(/\s+/g, " ")}`;
      return `${count} ${outcome}, ${status === null ? "no answer" : `status ${status}`}, ${code}${remark}`;
    })
    .join("\n");
}

/** Columns padded to their widest cell, right-aligned but for the first. */
function table(header: readonly string[], rows: readonly (readonly string[])[]): string {
  const all = [header, ...rows];
  const widths = header.map((_, column) => Math.max(...all.map((row) => row[column]?.length ?? 0)));
  const line = (row: readonly string[]) =>
    row.map((cell, i) => (i === 0 ? cell.padEnd(widths[i] ?? 0) : cell.padStart(widths[i] ?? 0))).join("  ");
  return all.map(line).join("\n");
}

/** About three significant digits, and all of those before the point. */
function figure(value: number): string {
  if (value === 0) return "0";
  const decimals = [1, 10, 100].filter((bound) => Math.abs(value) < bound).length;
  return value.toFixed(decimals);
}

function percent(share: number): string {
  return `${(100 * share).toFixed(1)}%`;
}
