import { percentile } from "./distribution.ts";
import type { RequestRecord } from "./request-record.ts";

const WIDTH = 900;
const PANEL = { height: 300, left: 60, right: 90, top: 30, bottom: 45 };
/** Points of a curve at most: a file for a million requests would help nobody. */
const POINTS = 300;
/** Dots of the second panel at most. */
const DOTS = 3000;
const COLOURS = { TTFT: "#4269d0", TPOT: "#efb118", ITL: "#3ca951", E2E: "#ff725c" } as const;
type Metric = keyof typeof COLOURS;
type Scale = (value: number) => number;

/**
 * Draws a run as SVG: above, the share of requests within a latency (of gaps for ITL), over a logarithmic axis; below,
 * TTFT and E2E over the time at which each request was meant to be sent, with a mark at the top for those without an answer.
 */
export function latencyPlot(records: readonly RequestRecord[], title: string): string {
  const ok = records.filter(({ outcome }) => outcome === "ok");
  const of = (values: (number | null)[]) => values.filter((value) => value !== null).sort((x, y) => x - y);
  const samples: [Metric, number[]][] = [
    ["TTFT", of(ok.map(({ ttft_ms }) => ttft_ms))],
    ["TPOT", of(ok.map(({ tpot_ms }) => tpot_ms))],
    ["ITL", of(ok.flatMap(({ itl_ms }) => itl_ms))],
    ["E2E", of(ok.map(({ e2e_ms }) => e2e_ms))],
  ];
  const shown = samples.filter(([, sample]) => sample.length > 0);
  const decades = (some: typeof samples) =>
    chooseDecades(some.flatMap(([, sample]) => [sample[0] ?? 0, sample.at(-1) ?? 0]));
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${2 * PANEL.height}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
<text x="${PANEL.left}" y="16">${escapeText(title)}</text>
<g>
${cumulative(shown, decades(shown))}
</g>
<g transform="translate(0 ${PANEL.height})">
${overTime(records, decades(shown.filter(([name]) => name === "TTFT" || name === "E2E")))}
</g>
</svg>
`;
}

/** Powers of ten around the values: at least one decade. */
function chooseDecades(values: readonly number[]): { from: number; to: number } {
  const positive = values.filter((value) => value > 0);
  if (positive.length === 0) return { from: 0, to: 3 };
  const from = Math.max(-1, Math.floor(Math.log10(Math.min(...positive))));
  return { from, to: Math.max(from + 1, Math.ceil(Math.log10(Math.max(...positive)))) };
}

function logScale({ from, to }: { from: number; to: number }, start: number, end: number): Scale {
  return (value) => {
    const exponent = Math.min(to, Math.max(from, Math.log10(Math.max(value, 1e-9))));
    return start + ((exponent - from) / (to - from)) * (end - start);
  };
}

function cumulative(samples: readonly [Metric, number[]][], decades: { from: number; to: number }): string {
  const right = WIDTH - PANEL.right;
  const bottom = PANEL.height - PANEL.bottom;
  const x = logScale(decades, PANEL.left, right);
  const y = (share: number) => bottom - share * (bottom - PANEL.top);
  const shares = [0, 0.25, 0.5, 0.75, 0.9, 1].map(
    (share) =>
      `<line x1="${PANEL.left}" x2="${right}" y1="${y(share)}" y2="${y(share)}" stroke="#ddd"/>` +
      `<text x="${PANEL.left - 8}" y="${y(share) + 4}" text-anchor="end">${Math.round(100 * share)}%</text>`,
  );
  const times = powers(decades).map(
    (power) =>
      `<line x1="${x(power)}" x2="${x(power)}" y1="${PANEL.top}" y2="${bottom}" stroke="#ddd"/>` +
      `<text x="${x(power)}" y="${bottom + 16}" text-anchor="middle">${power}</text>`,
  );
  const curves = samples.map(([name, sample], i) => {
    const steps = Math.min(POINTS, sample.length) - 1;
    const points = Array.from({ length: steps + 1 }, (_, step) => {
      const share = steps === 0 ? 1 : step / steps;
      return `${x(percentile(sample, 100 * share)).toFixed(1)},${y(share).toFixed(1)}`;
    });
    return (
      `<polyline fill="none" stroke="${COLOURS[name]}" stroke-width="1.5" points="${points.join(" ")}"/>` +
      `<text x="${right + 12}" y="${PANEL.top + 12 + 18 * i}" fill="${COLOURS[name]}">${name}</text>`
    );
  });
  return [...shares, ...times, ...curves, caption("share of requests (ITL: of gaps) within a latency, ms")].join("\n");
}

function overTime(records: readonly RequestRecord[], decades: { from: number; to: number }): string {
  const right = WIDTH - PANEL.right;
  const bottom = PANEL.height - PANEL.bottom;
  const last = records.reduce((max, record) => Math.max(max, record.intended_at_ms), 1);
  const x = (time: number) => PANEL.left + (time / last) * (right - PANEL.left);
  const y = logScale(decades, bottom, PANEL.top + 10);
  const ticks = [
    ...powers(decades).map(
      (power) =>
        `<line x1="${PANEL.left}" x2="${right}" y1="${y(power)}" y2="${y(power)}" stroke="#ddd"/>` +
        `<text x="${PANEL.left - 8}" y="${y(power) + 4}" text-anchor="end">${power}</text>`,
    ),
    ...[0, 0.25, 0.5, 0.75, 1].map(
      (share) =>
        `<text x="${x(share * last)}" y="${bottom + 16}" text-anchor="middle">${((share * last) / 1000).toFixed(1)}</text>`,
    ),
  ];
  const every = Math.max(1, Math.ceil((2 * records.length) / DOTS));
  const dots = records.flatMap(({ index, outcome, intended_at_ms, ttft_ms, e2e_ms }) => {
    const cx = x(intended_at_ms).toFixed(1);
    if (outcome === "refused" || outcome === "failed") {
      return [`<path d="M${cx} ${PANEL.top - 4}v8" stroke="${outcome === "refused" ? "#9498a0" : "#c00"}"/>`];
    }
    if (index % every !== 0) return [];
    const dot = (value: number | null, colour: string) =>
      value === null ? [] : [`<circle cx="${cx}" cy="${y(value).toFixed(1)}" r="2" fill="${colour}"/>`];
    return [...dot(ttft_ms, COLOURS.TTFT), ...dot(e2e_ms, COLOURS.E2E)];
  });
  return [
    ...ticks,
    ...dots,
    caption("latency in ms over the intended time of the send, s (top: grey refused, red failed)"),
  ].join("\n");
}

function powers({ from, to }: { from: number; to: number }): number[] {
  return Array.from({ length: to - from + 1 }, (_, i) => Number(`1e${from + i}`));
}

function caption(text: string): string {
  return `<text x="${(PANEL.left + WIDTH - PANEL.right) / 2}" y="${PANEL.height - 10}" text-anchor="middle">${text}</text>`;
}

function escapeText(text: string): string {
  return text.replace(/&/g, "&amp;").replace(/</g, "&lt;");
}
