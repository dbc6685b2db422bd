import { expect, test } from "vitest";
import { latencyPlot } from "./latency-plot.ts";
import { type BenchSettings, makeReport } from "./report.ts";
import { reportText } from "./report-text.ts";
import type { RequestRecord } from "./request-record.ts";
import { fathomField, lost, record } from "./testing/record.ts";

const SETTINGS: BenchSettings = {
  url: "http://127.0.0.1:8080",
  endpoint: "chat",
  model: "tiny",
  prompts: 80,
  rate: 10,
  burstiness: 1,
  concurrency: null,
  requests: 10,
  warmup: 0,
  max_seconds: null,
  timeout_seconds: 10,
  max_tokens: 4,
  temperature: 0,
  seed: 1,
  depth_mix: null,
  exit_mix: null,
  threshold: null,
  slo: null,
};

function report(records: RequestRecord[], changes: Partial<BenchSettings> = {}) {
  const settings = { ...SETTINGS, ...changes };
  const startedAt = "2026-01-01T00:00:00.000Z";
  return makeReport(records, {
    settings,
    startedAt,
    interrupted: false,
    durationMs: 2000,
    overdue: 3,
    clientBusy: 0.25,
  });
}

test("rates are over the whole run, and only whole answers count", () => {
  const { throughput, requests, in_flight, tokens } = report([
    record(0),
    record(1),
    lost(2, "failed", 500, "internal_error"),
    lost(3, "cut", null, "interrupted"),
  ]);
  expect(requests).toEqual({ sent: 4, ok: 2, refused: 0, failed: 1, cut: 1, overdue: 3 });
  expect(throughput).toEqual({ requests_per_second: 1, output_tokens_per_second: 4, total_tokens_per_second: 14 });
  expect(tokens).toEqual({ prompt: 20, output: 8, from: "usage" });
  // Four times 400 ms, each 100 ms after the last, in 2 s.
  expect(in_flight).toEqual({ mean: 0.8, max: 4 });
});

test("in a closed loop the next is sent as one ends, and they are not together", () => {
  const one = record(0, { sent_at_ms: 0, ended_at_ms: 50 });
  expect(report([one, record(1, { sent_at_ms: 50, ended_at_ms: 100 })]).in_flight.max).toBe(1);
});

test("goodput is what kept the objective; refusals miss it and cut requests do not count", () => {
  const slow = record(1, { ttft_ms: 600 });
  const records = [record(0), slow, lost(2, "refused", 429, "overloaded"), lost(3, "cut", null, "interrupted")];
  const { goodput } = report(records, { slo: { ttft: 500, tpot: 100 } });
  expect(goodput).toEqual({ met: 1, share: 1 / 3, requests_per_second: 0.5 });
  expect(report(records).goodput).toBeNull();
});

test("lateness of sends is told for an open loop", () => {
  const late = record(0, { intended_at_ms: 0, sent_at_ms: 30 });
  expect(report([late, record(1)]).send_late_ms).toMatchObject({ count: 2, mean: 15, max: 30 });
  expect(report([late], { rate: null }).send_late_ms).toBeNull();
});

test("an answer of one token has no TPOT, one of none no TTFT either", () => {
  const short = record(0, { tpot_ms: null, itl_ms: [], output_tokens: 1 });
  const empty = record(1, { ttft_ms: null, tpot_ms: null, itl_ms: [], output_tokens: 0 });
  const { ttft_ms, tpot_ms, itl_ms, e2e_ms } = report([short, empty]);
  expect([ttft_ms?.count, tpot_ms, itl_ms, e2e_ms?.count]).toEqual([1, null, null, 2]);
});

test("Fathom's account is added up token by token", () => {
  const { fathom } = report([
    record(0, { fathom: fathomField([12, 12, 30], 10) }),
    record(1, { fathom: fathomField([30], 20, { depth: 12, proposed: 8, accepted: 6 }) }),
    record(2),
  ]);
  expect(fathom).toMatchObject({
    requests: 2,
    layers_mean: 21,
    layers_histogram: { 12: 2, 30: 2 },
    layer_tokens: 284,
    layer_tokens_per_second: 142,
    micro_usd: 4,
    queue_ms: { count: 2, mean: 15 },
    draft: { proposed: 8, accepted: 6, acceptance: 0.75 },
  });
  expect(report([record(0)]).fathom).toBeNull();
});

test("kinds of requests are reported apart, shallow first", () => {
  const { classes } = report([
    record(0, { depth: 30 }),
    record(1, { depth: 12, e2e_ms: 200 }),
    record(2, { depth: "auto" }),
    lost(3, "failed", 500, "internal_error"),
    { ...lost(4, "failed", 500, "internal_error"), depth: 12 },
  ]);
  expect(classes.map(({ depth, sent, ok }) => [depth, sent, ok])).toEqual([
    [12, 2, 1],
    [30, 1, 1],
    ["auto", 1, 1],
    [null, 1, 0],
  ]);
  expect(classes[0]?.e2e_ms?.mean).toBe(200);
  expect(report([record(0, { depth: 30 })]).classes).toEqual([]);
});

test("the text has the figures of the report", () => {
  const text = reportText(
    report(
      [
        record(0, { depth: 12, fathom: fathomField([12, 12, 12, 12], 7.5, { depth: 12, proposed: 8, accepted: 6 }) }),
        record(1, { depth: 30, e2e_ms: 1234, fathom: fathomField([30, 30, 30, 30], 7.5) }),
        lost(2, "refused", 429, "overloaded"),
        lost(3, "failed", null, "ECONNREFUSED"),
      ],
      { slo: { ttft: 500 } },
    ),
  );
  expect(text).toContain("open loop, 10 requests/s, Poisson");
  expect(text).toContain("2 ok, 1 refused, 1 failed, 3 due but never sent, of 10, in 2.0 s");
  expect(text).toContain("client busy 25.0% of the time\n");
  expect(text).toContain("50.0% within ttft 500 ms");
  expect(text).toContain("21.0 per token; 12: 50.0%, 30: 50.0%");
  expect(text).toContain("75.0% accepted: 6 of 8");
  expect(text).toMatch(/^E2E +817 +817 /m);
  expect(text).toMatch(/^server queue +7.50 /m);
  expect(text).toMatch(/^depth 12 +1\/1 +12\.0 /m);
  expect(text).toContain("1 failed, no answer, ECONNREFUSED: no");
});

test("a run without answers has a report and a plot all the same", () => {
  const records = [lost(0, "failed", null, "ECONNREFUSED")];
  expect(reportText(report(records))).toContain("0 ok, 1 failed");
  expect(report([]).throughput.requests_per_second).toBe(0);
  expect(reportText(report([]))).not.toContain("NaN");
  for (const some of [records, []]) expect(latencyPlot(some, "x")).not.toContain("NaN");
});

test("the plot has a curve per latency, dots over time and marks for what was lost", () => {
  const records = Array.from({ length: 5000 }, (_, i) => record(i, { ttft_ms: 10 + i, itl_ms: [i] }));
  const svg = latencyPlot([...records, lost(5000, "refused", 429, "x"), lost(5001, "failed", 500, "x")], "a & <b>");
  expect(svg).toContain("a &amp; &lt;b>");
  const curves = [...svg.matchAll(/points="([^"]*)"/g)].map(([, points = ""]) => points.split(" "));
  expect(curves).toHaveLength(4);
  for (const points of curves) expect(points.length).toBeLessThanOrEqual(300);
  expect(svg.match(/<path/g)).toHaveLength(2);
  expect(svg.match(/<circle/g)?.length).toBeLessThanOrEqual(3000);
  expect(svg).not.toContain("NaN");
});
