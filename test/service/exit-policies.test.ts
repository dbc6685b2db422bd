import { readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { ChatCompletion, Completion, ErrorBody, PRIORITY_HEADER, TIMEOUT_HEADER } from "@fathom/shared";
import { afterAll, beforeAll, expect, test } from "vitest";
import { SECRET, type ServiceProcess, serviceProcess } from "./helpers/service-process.ts";
import { TINY_NAME, type TinyCheckpoint, tinyCheckpoint } from "./helpers/tiny-checkpoint.ts";

const PROMPTS = [[5], [5, 9, 12], [70, 71, 72, 73, 74, 75, 76, 77, 78, 79, 80]];
const CHAT = { model: TINY_NAME, messages: [{ role: "user", content: "Hi" }], temperature: 0, max_tokens: 20 };

let tokens: TinyCheckpoint;
let calibrated: TinyCheckpoint;
let service: ServiceProcess;

beforeAll(async () => {
  tokens = await tinyCheckpoint({ tokenizer: false });
  calibrated = await tinyCheckpoint();
  const path = join(calibrated.dir, "manifest.json");
  const manifest: object = JSON.parse(await readFile(path, "utf8"));
  await writeFile(path, JSON.stringify({ ...manifest, thresholds: { 4: 0 } }));
  service = await serviceProcess(tokens.dir, ["--threads", "1"]);
});

afterAll(async () => {
  await service?.stop();
  await Promise.all([tokens?.remove(), calibrated?.remove()]);
});

function send(to: ServiceProcess, path: string, body: unknown, headers: Record<string, string> = {}) {
  return fetch(to.url + path, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${SECRET}`, ...headers },
    body: JSON.stringify(body),
  });
}

async function complete(prompt: readonly number[], fathom: object, more: object = {}): Promise<Completion> {
  const body = { model: TINY_NAME, prompt, temperature: 0, max_tokens: 24, fathom, ...more };
  const response = await send(service, "/v1/completions", body);
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  return Completion.parse(await response.json());
}

test("speculation gives the answer of plain decoding at the target, and tells what was drafted", async () => {
  await Promise.all(
    PROMPTS.flatMap((prompt) =>
      [{ depth: 8 }, { depth: 8, min_depth: 4 }, { depth: 6 }].map(async (dial) => {
        const plain = await complete(prompt, { depth: dial.depth });
        const drafted = await complete(prompt, { ...dial, exit: "speculative" });
        expect(drafted.choices[0]).toEqual(plain.choices[0]);
        expect(drafted.fathom).toMatchObject({ exit: "speculative", cost: plain.fathom?.cost });
        const { draft, ...layers } = drafted.fathom?.layers ?? {};
        expect(layers).toEqual(plain.fathom?.layers);
        expect(draft).toMatchObject({ depth: dial.min_depth ?? 2 });
        expect(draft?.accepted).toBeLessThanOrEqual(draft?.proposed ?? 0);
      }),
    ),
  );
});

test.each([
  [2, 2],
  [3, 4],
])("a threshold that all reach is the first exit from min_depth %d on", async (floor, depth) => {
  for (const prompt of PROMPTS) {
    const { choices } = await complete(prompt, { exit: "confidence", threshold: 0, min_depth: floor });
    // The first token comes out of the prefill, wherever that ends.
    const [first = 0, ...rest] = choices[0]?.token_ids ?? [];
    expect(choices[0]?.layers_used?.slice(1)).toEqual(rest.map(() => depth));
    const fixed = await complete([...prompt, first], { depth }, { max_tokens: rest.length });
    expect(rest).toEqual(fixed.choices[0]?.token_ids);
  }
});

test("the account of a confident answer is that of its tokens' own layers", async () => {
  const { choices, fathom, usage } = await complete([5, 9, 12], { exit: "confidence", threshold: 0.02 });
  const layers = choices[0]?.layers_used ?? [];
  const sum = layers.reduce((a, b) => a + b, 0);
  expect(fathom?.layers).toMatchObject({ total: sum, min: Math.min(...layers), max: Math.max(...layers) });
  const promptCost = (fathom?.cost.layer_tokens ?? 0) - sum;
  expect([2, 4, 6, 8].map((depth) => depth * (usage?.prompt_tokens ?? 0))).toContain(promptCost);
});

test("a checkpoint without thresholds says what to do, one with them runs", async () => {
  const refused = await send(service, "/v1/completions", {
    model: TINY_NAME,
    prompt: [5],
    fathom: { exit: "confidence" },
  });
  expect(refused.status).toBe(400);
  const { error } = ErrorBody.parse(await refused.json());
  expect(error).toMatchObject({ code: "unsupported_exit_policy", param: "fathom.threshold" });
  expect(error.message).toContain("fathom calibrate");

  const own = await serviceProcess(calibrated.dir, ["--threads", "1"]);
  try {
    const run = async (dial: object): Promise<ChatCompletion> => {
      const body = { ...CHAT, fathom: { ...dial, exit: "confidence" } };
      return ChatCompletion.parse(await (await send(own, "/v1/chat/completions", body)).json());
    };
    const { fathom, usage } = await run({});
    // All but the first token, which comes out of the prefill. Exit 2 has no threshold: it is passed.
    expect(fathom).toMatchObject({ exit: "confidence", layers: { histogram: { 4: usage.completion_tokens - 1 } } });
    expect((await run({ depth: 4 })).fathom).toMatchObject({ exit: "confidence", layers: { min: 4, max: 4 } });
  } finally {
    await own.stop();
  }
});

test("a prompt that was there before is not prefilled again, costs the same, and gives the same answer", async () => {
  const prompt = Array.from({ length: 150 }, (_, i) => 3 + ((i * 7) % 300));
  const first = await complete(prompt, { depth: 8 }, { max_tokens: 4 });
  const second = await complete(prompt, { depth: 8 }, { max_tokens: 4 });
  expect(first.usage?.prompt_tokens_details?.cached_tokens).toBe(0);
  expect(second.usage?.prompt_tokens_details?.cached_tokens).toBeGreaterThan(0);
  expect(second.choices).toEqual(first.choices);
  expect(second.fathom?.cost).toEqual(first.fathom?.cost);
});

test("an answer that takes too long is a 504, and priorities are taken", async () => {
  const body = { model: TINY_NAME, prompt: [5], max_tokens: 250, temperature: 0 };
  const late = await send(service, "/v1/completions", body, { [TIMEOUT_HEADER]: "1" });
  expect(late.status).toBe(504);
  expect(await late.json()).toMatchObject({ error: { code: "timeout" } });
  for (const priority of ["interactive", "batch"]) {
    const response = await send(
      service,
      "/v1/completions",
      { ...body, max_tokens: 2 },
      { [PRIORITY_HEADER]: priority },
    );
    expect(response.status).toBe(200);
  }
});

test("the metrics add up", async () => {
  await complete([5, 9, 12], { exit: "speculative" });
  const read = async (): Promise<Record<string, number>> => {
    const sums: Record<string, number> = {};
    for (const line of (await (await fetch(`${service.url}/metrics`)).text()).split("\n")) {
      const [, name, value] = /^([\w:]+)(?:\{.*\})? (\S+)$/.exec(line) ?? [];
      if (name !== undefined) sums[name] = (sums[name] ?? 0) + Number(value);
    }
    return sums;
  };
  // The engine's figures are a quarter of a second old at most.
  await expect.poll(async () => (await read())["vllm:num_requests_running"]).toBe(0);
  const sums = await read();
  expect(sums["vllm:generation_tokens_total"]).toBeGreaterThan(0);
  expect(sums.fathom_tokens_total).toBe(sums["vllm:generation_tokens_total"]);
  expect(sums["vllm:spec_decode_num_accepted_tokens_total"]).toBeLessThanOrEqual(
    sums["vllm:spec_decode_num_draft_tokens_total"] ?? 0,
  );
  expect(sums["vllm:prefix_cache_hits_total"]).toBeLessThanOrEqual(sums["vllm:prefix_cache_queries_total"] ?? 0);
  expect(sums.fathom_pending_rows).toBe(0);
  expect(sums["vllm:kv_cache_usage_perc"]).toBe(0);
  expect(sums.fathom_requests_refused_total).toBeGreaterThan(0);
  expect(sums.process_resident_memory_bytes).toBeGreaterThan(0);
});
