import { expect, onTestFinished, test } from "vitest";
import { runBench } from "./bench-run.ts";
import { OpenAiClient } from "./openai-client.ts";
import { BenchReport, type BenchSettings } from "./report.ts";
import { RequestRecord } from "./request-record.ts";
import { type StubAnswer, type StubRequest, stubServer } from "./testing/stub-server.ts";

const SETTINGS: BenchSettings = {
  url: "",
  endpoint: "chat",
  model: "stub",
  prompts: 3,
  rate: null,
  burstiness: 1,
  concurrency: 1,
  requests: 4,
  warmup: 0,
  max_seconds: null,
  timeout_seconds: 10,
  max_tokens: 8,
  temperature: 0,
  seed: 42,
  depth_mix: null,
  exit_mix: null,
  threshold: null,
  slo: null,
};
const PROMPTS = ["a", "b", "c"].map((text) => ({ kind: "text" as const, text }));
const QUICK: StubAnswer = {
  texts: [[0, "x"]],
  usage: { prompt_tokens: 3, completion_tokens: 1, total_tokens: 4 },
};

async function bench(
  script: (request: StubRequest, index: number) => StubAnswer,
  changes: Partial<BenchSettings> = {},
  { timeoutMs = 10_000, signal = new AbortController().signal } = {},
) {
  const server = await stubServer(script);
  const client = new OpenAiClient({ url: server.url, key: "k", timeoutMs });
  onTestFinished(async () => {
    client.close();
    await server.close();
  });
  const settings = { ...SETTINGS, url: server.url, ...changes };
  const run = await runBench({ client, prompts: PROMPTS, settings, signal, onProgress: () => {} });
  // What is written must be what the schemas say.
  expect(BenchReport.parse(JSON.parse(JSON.stringify(run.report)))).toEqual(run.report);
  for (const record of run.records) RequestRecord.parse(JSON.parse(JSON.stringify(record)));
  return { ...run, server };
}

test("latencies are those of the server's delays", async () => {
  const script: StubAnswer = {
    texts: [
      [120, "a"],
      [60, "b"],
      [60, "c"],
    ],
    usage: { prompt_tokens: 5, completion_tokens: 3, total_tokens: 8 },
  };
  const { report, records } = await bench(() => script, { requests: 6, concurrency: 3, slo: { ttft: 60 } });
  expect(report.requests).toMatchObject({ sent: 6, ok: 6, refused: 0, failed: 0 });
  expect(report.tokens).toEqual({ prompt: 30, output: 18, from: "usage" });
  expect(report.in_flight.max).toBe(3);
  // Lower bounds are exact but for the timers' own millisecond; upper ones leave room for a busy machine.
  expect(report.ttft_ms?.min).toBeGreaterThan(118);
  expect(report.ttft_ms?.p50).toBeLessThan(600);
  expect(report.tpot_ms?.min).toBeGreaterThan(20);
  expect(report.itl_ms?.count).toBe(12);
  expect(report.e2e_ms?.min).toBeGreaterThan(236);
  expect(report.duration_s).toBeGreaterThan(0.47);
  expect(report.goodput).toEqual({ met: 0, share: 0, requests_per_second: 0 });
  expect(report.send_late_ms).toBeNull();
  for (const { e2e_ms, ttft_ms, tpot_ms } of records) {
    expect(tpot_ms).toBeCloseTo(((e2e_ms ?? 0) - (ttft_ms ?? 0)) / 2, 2);
  }
});

test("an open loop counts from the intended send: a stall shows in all that it delayed", async () => {
  // One place, 1 ms per answer, but the first one stalls for half a second while 40 requests come due.
  const { report, records } = await bench((_, index) => ({ texts: [[index === 0 ? 500 : 1, "x"]] }), {
    rate: 100,
    concurrency: 1,
    requests: 40,
  });
  expect(report.requests.ok).toBe(40);
  const delayed = records.filter(({ e2e_ms }) => (e2e_ms ?? 0) > 100);
  // Measured from the real sends, only the first would have been slow.
  expect(delayed.length).toBeGreaterThan(20);
  expect(records.filter(({ ended_at_ms, sent_at_ms }) => ended_at_ms - sent_at_ms > 100).length).toBeLessThan(10);
  expect(report.send_late_ms?.p50).toBeGreaterThan(50);
  expect(records.map(({ intended_at_ms }) => intended_at_ms)).toEqual(
    records.map(({ intended_at_ms }) => intended_at_ms).toSorted((x, y) => x - y),
  );
});

test("an open loop without a bound does not wait for answers", async () => {
  const { report } = await bench(() => ({ texts: [[400, "x"]] }), { rate: 200, concurrency: null, requests: 20 });
  expect(report.in_flight.max).toBeGreaterThan(10);
});

test("refusals are apart from failures, which are counted by status and code", async () => {
  const answers: StubAnswer[] = [
    QUICK,
    { status: 429, body: { error: { message: "Slow down.", type: "rate_limit_error", code: "overloaded" } } },
    { status: 503, body: { error: { message: "Going.", type: "server_error", code: "draining" } } },
    { status: 429, body: { error: { message: "Slow down!", type: "rate_limit_error", code: "overloaded" } } },
    { status: 500, body: "<html>" },
    { texts: [[0, "x"]], done: false },
    "hang up",
    { status: 200, body: { choices: [] } },
  ];
  const { report } = await bench((_, index) => answers[index] ?? QUICK, { requests: 8, slo: { e2e: 10_000 } });
  expect(report.requests).toMatchObject({ sent: 8, ok: 1, refused: 3, failed: 4 });
  const [first, ...others] = report.errors;
  expect(first).toEqual({ outcome: "refused", status: 429, code: "overloaded", count: 2, message: "Slow down." });
  expect(others.map(({ outcome, status, code }) => `${outcome} ${status} ${code}`).toSorted()).toEqual([
    "failed 200 incomplete_stream",
    "failed 200 not_a_stream",
    "failed 500 error",
    "failed null ECONNRESET",
    "refused 503 draining",
  ]);
  expect(report.goodput).toMatchObject({ met: 1, share: 0.125 });
});

test("a request that takes too long has failed, and the run goes on", async () => {
  const { report } = await bench((_, index) => (index === 1 ? "never answer" : QUICK), {}, { timeoutMs: 300 });
  expect(report.requests).toMatchObject({ ok: 3, failed: 1 });
  expect(report.errors).toMatchObject([{ status: null, code: "timeout" }]);
});

test("an interruption cuts what is in flight and keeps what was measured", async () => {
  const controller = new AbortController();
  const script = (_: StubRequest, index: number): StubAnswer => {
    if (index < 4) return QUICK;
    if (index === 5) setTimeout(() => controller.abort(), 20);
    return "never answer";
  };
  const { report } = await bench(script, { requests: 100, concurrency: 2 }, { signal: controller.signal });
  expect(report.interrupted).toBe(true);
  expect(report.requests).toMatchObject({ ok: 4, failed: 0, cut: 2, sent: 6 });
  expect(report.errors).toEqual([]);
});

test("after --max-seconds none is sent, and those in flight end", async () => {
  const { report } = await bench(() => ({ texts: [[150, "x"]] }), { requests: 1000, max_seconds: 0.4 });
  expect(report.requests.failed + report.requests.cut).toBe(0);
  expect(report.requests.ok).toBeGreaterThan(0);
  expect(report.requests.ok).toBeLessThan(4);
  const late = await bench(() => ({ texts: [[300, "x"]] }), { rate: 50, requests: 1000, max_seconds: 0.4 });
  expect(late.report.requests.overdue).toBeGreaterThan(5);
});

test("a warm-up that fails says why, before anything is measured", async () => {
  const refusal = { status: 401, body: { error: { message: "Who?", type: "x", code: "invalid_api_key" } } };
  await expect(bench(() => refusal, { warmup: 2 })).rejects.toThrow(
    /chat\/completions: status 401, invalid_api_key: Who/,
  );
  const { server, report } = await bench(() => QUICK, { warmup: 2 });
  expect(report.requests.sent).toBe(4);
  expect(server.requests).toHaveLength(6);
});

test("a server of others is asked nothing that it does not know", async () => {
  const { server, report } = await bench(() => ({
    texts: [
      [0, "x"],
      [1, "y"],
    ],
  }));
  expect(server.requests[0]?.headers).toMatchObject({ authorization: "Bearer k", "content-type": "application/json" });
  expect(server.requests[0]?.path).toBe("/v1/chat/completions");
  expect(server.requests[0]?.body).toEqual({
    model: "stub",
    messages: [{ role: "user", content: expect.stringMatching(/^[abc]$/) }],
    max_tokens: 8,
    temperature: 0,
    stream: true,
    stream_options: { include_usage: true },
  });
  expect(report.tokens).toEqual({ prompt: null, output: 8, from: "chunks" });
  expect(report.fathom).toBeNull();
  expect(report.throughput.total_tokens_per_second).toBeNull();
});

test("the mix reaches the server, the same with the same seed", async () => {
  const changes: Partial<BenchSettings> = {
    endpoint: "completions",
    requests: 10,
    temperature: 1,
    threshold: 0.5,
    depth_mix: [
      { value: 12, share: 0.3 },
      { value: "auto", share: 0.7 },
    ],
    exit_mix: [{ value: "confidence", share: 1 }],
  };
  const bodies = async (seed: number) =>
    (await bench(() => QUICK, { ...changes, seed })).server.requests.map(({ body }) => body);
  const first = await bodies(1);
  expect(first.filter(({ fathom }) => (fathom as { depth: unknown }).depth === 12)).toHaveLength(3);
  expect(first[0]).toMatchObject({
    fathom: { exit: "confidence", threshold: 0.5 },
    prompt: expect.any(String),
    seed: 1,
  });
  expect(await bodies(1)).toEqual(first);
  expect(await bodies(2)).not.toEqual(first);
});
