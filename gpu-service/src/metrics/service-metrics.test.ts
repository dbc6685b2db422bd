import { ApiError } from "@fathom/shared";
import { expect, onTestFinished, test } from "vitest";
import type { EngineStats } from "../engine/types.ts";
import { post, type ScriptedServiceOptions, scriptedService, TINY_TEXT } from "../http/testing/scripted-service.ts";
import { ServiceMetrics } from "./service-metrics.ts";

const CHAT = { model: "tiny", messages: [{ role: "user", content: "Hi" }], temperature: 0 };
const PATH = "/v1/chat/completions";

async function start(options: ScriptedServiceOptions = {}) {
  const started = await scriptedService(options);
  onTestFinished(() => started.close());
  return started;
}

/** Samples by their name with labels, as in Prometheus' text format. */
async function scrape(url: string): Promise<Map<string, number>> {
  const response = await fetch(`${url}/metrics`);
  expect(response.status).toBe(200);
  expect(response.headers.get("content-type")).toMatch(/^text\/plain; version=0\.0\.4/);
  const lines = (await response.text()).split("\n").filter((line) => line !== "" && !line.startsWith("#"));
  return new Map(
    lines.map((line) => {
      const space = line.lastIndexOf(" ");
      return [line.slice(0, space), Number(line.slice(space + 1))];
    }),
  );
}

const STATS: Partial<EngineStats> = {
  running: 3,
  waiting: 2,
  paused: 1,
  kvBytes: 600,
  kvBudgetBytes: 1000,
  prefixCacheBytes: 350,
  pendingRows: 17,
  steps: 99,
  promptTokens: 1234,
  generatedTokens: 56,
  prefixCacheQueries: 800,
  prefixCacheHits: 320,
  preemptions: 4,
  exits: [
    { depth: 2, reason: "confident", tokens: 40 },
    { depth: 8, reason: "target", tokens: 11 },
    { depth: 8, reason: "verified", tokens: 5 },
  ],
  draftProposed: 9,
  draftAccepted: 7,
};

test("the engine's figures have vLLM's names where it has one, and the model's name", async () => {
  const { url } = await start({ script: { tokens: [], stats: STATS } });
  const samples = await scrape(url);
  const model = 'model_name="tiny"';
  expect(Object.fromEntries(samples)).toMatchObject({
    [`vllm:num_requests_running{${model}}`]: 3,
    [`vllm:num_requests_waiting{${model}}`]: 2,
    [`vllm:kv_cache_usage_perc{${model}}`]: 0.25,
    [`vllm:prompt_tokens_total{${model}}`]: 1234,
    [`vllm:generation_tokens_total{${model}}`]: 56,
    [`vllm:prefix_cache_queries_total{${model}}`]: 800,
    [`vllm:prefix_cache_hits_total{${model}}`]: 320,
    [`vllm:num_preemptions_total{${model}}`]: 4,
    [`vllm:spec_decode_num_draft_tokens_total{${model}}`]: 9,
    [`vllm:spec_decode_num_accepted_tokens_total{${model}}`]: 7,
    [`fathom_requests_paused{${model}}`]: 1,
    [`fathom_pending_rows{${model}}`]: 17,
    [`fathom_engine_steps_total{${model}}`]: 99,
    [`fathom_kv_bytes{${model},kind="requests"}`]: 250,
    [`fathom_kv_bytes{${model},kind="prefix_cache"}`]: 350,
    [`fathom_kv_budget_bytes{${model}}`]: 1000,
    [`fathom_tokens_total{${model},depth="2",reason="confident"}`]: 40,
    [`fathom_tokens_total{${model},depth="8",reason="target"}`]: 11,
    [`fathom_tokens_total{${model},depth="8",reason="verified"}`]: 5,
  });
  // Scraping again must not count again.
  expect((await scrape(url)).get(`vllm:prompt_tokens_total{${model}}`)).toBe(1234);
});

test("complete answers fill the histograms", async () => {
  const { url, engine } = await start({ script: "abcd" });
  await post(url + PATH, CHAT);
  await (await post(url + PATH, { ...CHAT, max_tokens: 2, stream: true, fathom: { depth: 4 } })).text();
  const prompt = engine.requests[0]?.prompt.length ?? 0;
  const samples = await scrape(url);
  const of = (name: string, labels = ""): number | undefined => samples.get(`${name}{model_name="tiny"${labels}}`);
  expect(of("vllm:request_success_total", ',finished_reason="stop"')).toBe(1);
  expect(of("vllm:request_success_total", ',finished_reason="length"')).toBe(1);
  expect(of("vllm:time_to_first_token_seconds_count")).toBe(2);
  expect(of("vllm:inter_token_latency_seconds_count")).toBe(3 + 1);
  expect(of("vllm:request_time_per_output_token_seconds_count")).toBe(2);
  expect(of("vllm:request_time_per_output_token_seconds_sum")).toBeCloseTo(0.04 / 3 + 0.04);
  expect(of("vllm:e2e_request_latency_seconds_sum")).toBeCloseTo(2 * 0.043);
  expect(of("vllm:request_queue_time_seconds_sum")).toBeCloseTo(2 * 0.001);
  expect(of("vllm:request_prefill_time_seconds_sum")).toBeCloseTo(2 * 0.002);
  expect(of("vllm:request_decode_time_seconds_sum")).toBeCloseTo(2 * 0.04);
  expect(of("vllm:request_prompt_tokens_sum")).toBe(2 * prompt);
  expect(of("vllm:request_generation_tokens_sum")).toBe(4 + 2);
  expect(samples.get('vllm:request_generation_tokens_bucket{le="2",model_name="tiny"}')).toBe(1);
  expect(of("fathom_layer_tokens_total")).toBe(prompt * 8 + 4 * 8 + prompt * 4 + 2 * 4);
});

test("an answer that a stop string ends is a stop", async () => {
  const { url } = await start({ script: "abcd" });
  await post(url + PATH, { ...CHAT, stop: "b" });
  const samples = await scrape(url);
  expect(samples.get('vllm:request_success_total{model_name="tiny",finished_reason="stop"}')).toBe(1);
  expect([...samples.keys()].filter((name) => name.includes("abort"))).toEqual([]);
});

test("answers that fail are told apart by how", async () => {
  const tokens = TINY_TEXT.encode("abc");
  const stuck = { tokens, before: (i: number): Promise<void> => (i < 1 ? Promise.resolve() : new Promise(() => {})) };
  const late = await start({ script: stuck, requestTimeoutMs: 30 });
  await (await post(late.url + PATH, { ...CHAT, stream: true })).text();
  expect((await scrape(late.url)).get('vllm:request_success_total{model_name="tiny",finished_reason="timeout"}')).toBe(
    1,
  );

  const broken = await start({ script: { tokens, failure: { at: 1, error: new Error("no") } } });
  await post(broken.url + PATH, CHAT);
  expect((await scrape(broken.url)).get('vllm:request_success_total{model_name="tiny",finished_reason="error"}')).toBe(
    1,
  );

  const left = await start({ script: stuck });
  const response = await post(left.url + PATH, { ...CHAT, stream: true });
  await response.body?.cancel();
  const aborted = 'vllm:request_success_total{model_name="tiny",finished_reason="abort"}';
  await expect.poll(async () => (await scrape(left.url)).get(aborted)).toBe(1);
});

test("refusals are counted by their code, and are no answers", async () => {
  const error = new ApiError("overloaded", "the service is at capacity", { retryAfter: 1 });
  const { url } = await start({ script: { tokens: [5], failure: { at: 0, error } } });
  await post(url + PATH, CHAT);
  await post(url + PATH, { ...CHAT, fathom: { depth: 3 } });
  await post(url + PATH, { ...CHAT, fathom: { depth: 5 } });
  const samples = await scrape(url);
  expect(samples.get('fathom_requests_refused_total{code="overloaded"}')).toBe(1);
  expect(samples.get('fathom_requests_refused_total{code="invalid_depth"}')).toBe(2);
  expect([...samples.keys()].filter((name) => name.startsWith("vllm:request_success_total"))).toEqual([]);
});

test("metrics need no key, hold no text and no secret, and are there while the model loads", async () => {
  const secret = "a-secret-of-sixteen-or-more";
  const { url } = await start({ secret, script: "confidential answer" });
  const messages = [{ role: "user", content: "confidential question" }];
  await post(
    url + PATH,
    { ...CHAT, messages, user: "confidential" },
    { headers: { authorization: `Bearer ${secret}` } },
  );
  const text = await (await fetch(`${url}/metrics`)).text();
  expect(text).not.toMatch(/confidential|a-secret/);
  const loading = await start({ loading: true });
  expect([...(await scrape(loading.url)).keys()].filter((name) => name.startsWith("vllm:"))).toEqual([]);
  expect((await post(`${url}/metrics`, {})).status).toBe(405);
});

test("the process' own figures are there when asked for", async () => {
  const text = await new ServiceMetrics(() => undefined, { process: true }).text();
  expect(text).toMatch(/^process_resident_memory_bytes \d+/m);
  expect(text).toMatch(/^nodejs_eventloop_lag_p99_seconds /m);
});
