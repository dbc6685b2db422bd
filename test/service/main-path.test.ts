import { readFile } from "node:fs/promises";
import { ChatCompletion, ChatCompletionChunk, Completion, ModelList } from "@fathom/shared";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { SECRET, type ServiceProcess, serviceProcess } from "./helpers/service-process.ts";
import { TINY_EXITS, TINY_NAME, type TinyCheckpoint, tinyCheckpoint } from "./helpers/tiny-checkpoint.ts";

const END_OF_SEQUENCE = 2;
const CHAT = { model: TINY_NAME, messages: [{ role: "user", content: "the cat" }], temperature: 0, max_tokens: 40 };

const Reference = z.object({
  prompts: z.array(z.array(z.int())),
  /** Hugging Face's greedy continuation, per prompt and exit. */
  greedy24: z.array(z.array(z.array(z.int()))),
});
const REFERENCE = new URL("../fixtures/tiny-llama/tied/reference.json", import.meta.url);

let checkpoints: { text: TinyCheckpoint; tokens: TinyCheckpoint };
let text: ServiceProcess;
let tokens: ServiceProcess;

beforeAll(async () => {
  checkpoints = { text: await tinyCheckpoint(), tokens: await tinyCheckpoint({ tokenizer: false }) };
  text = await serviceProcess(checkpoints.text.dir, ["--threads", "1"]);
  tokens = await serviceProcess(checkpoints.tokens.dir, ["--threads", "1"]);
});

afterAll(async () => {
  await Promise.all([text?.stop(), tokens?.stop()]);
  await Promise.all([checkpoints?.text.remove(), checkpoints?.tokens.remove()]);
});

async function post(service: ServiceProcess, path: string, body: unknown): Promise<Response> {
  const response = await fetch(service.url + path, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${SECRET}` },
    body: JSON.stringify(body),
  });
  if (!response.ok) throw new Error(`${response.status}: ${await response.text()}`);
  return response;
}

async function events<T>(response: Response, schema: z.ZodType<T>): Promise<T[]> {
  const data = (await response.text())
    .split("\n\n")
    .filter((line) => line !== "")
    .map((line) => line.replace(/^data: /, ""));
  expect(data.pop()).toBe("[DONE]");
  return data.map((line) => schema.parse(JSON.parse(line)));
}

/** A continuation up to where the end-of-sequence token would end an answer. */
function untilEnd(continuation: readonly number[]): readonly number[] {
  const end = continuation.indexOf(END_OF_SEQUENCE);
  return end < 0 ? continuation : continuation.slice(0, end);
}

test("every prompt at every exit, all at once over HTTP, continues as Hugging Face does", async () => {
  const reference = Reference.parse(JSON.parse(await readFile(REFERENCE, "utf8")));
  const cases = reference.prompts.flatMap((prompt, p) =>
    TINY_EXITS.flatMap((depth, e) =>
      [true, false].map((stream) => ({ prompt, depth, stream, expected: untilEnd(reference.greedy24[p]?.[e] ?? []) })),
    ),
  );
  expect(cases.length).toBeGreaterThan(30);
  await Promise.all(
    cases.map(async ({ prompt, depth, stream, expected }) => {
      const body = { model: TINY_NAME, prompt, max_tokens: 24, temperature: 0, stream, fathom: { depth } };
      const response = await post(tokens, "/v1/completions", body);
      const parts = stream ? await events(response, Completion) : [Completion.parse(await response.json())];
      const got = parts.flatMap(({ choices }) => choices[0]?.token_ids ?? []);
      expect(got).toEqual(expected);
      const layers = parts.flatMap(({ choices }) => choices[0]?.layers_used ?? []);
      expect(layers).toEqual(expected.map(() => depth));
      expect(parts.at(-1)?.fathom).toMatchObject({
        depth,
        reason: "requested",
        layers: { total: expected.length * depth, min: expected.length ? depth : 0 },
        cost: { layer_tokens: (prompt.length + expected.length) * depth },
      });
    }),
  );
});

test("a chat streamed is the chat answered whole", async () => {
  const whole = ChatCompletion.parse(await (await post(text, "/v1/chat/completions", CHAT)).json());
  const chunks = await events(await post(text, "/v1/chat/completions", { ...CHAT, stream: true }), ChatCompletionChunk);
  expect(whole.choices[0]?.message.content).not.toBe("");
  expect(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("")).toBe(whole.choices[0]?.message.content);
  const layers = chunks.flatMap((chunk) => chunk.choices[0]?.layers_used ?? []);
  expect(layers).toHaveLength(whole.usage.completion_tokens);
  expect(chunks.at(-1)?.fathom?.layers).toEqual(whole.fathom.layers);
});

test("timing adds up", async () => {
  const { fathom, usage } = ChatCompletion.parse(await (await post(text, "/v1/chat/completions", CHAT)).json());
  const { timing } = fathom;
  expect(usage.completion_tokens).toBeGreaterThan(1);
  expect(timing.total_ms).toBeGreaterThanOrEqual(timing.time_to_first_token_ms);
  expect(timing.total_ms + 0.01).toBeGreaterThanOrEqual(timing.time_to_first_token_ms + timing.decode_ms);
  expect(timing.time_to_first_token_ms + 0.01).toBeGreaterThanOrEqual(timing.queue_ms + timing.prefill_ms);
  expect(timing.tokens_per_second * timing.inter_token_ms_mean).toBeCloseTo(1000, -1);
});

test("a seed makes a drawn answer repeatable, another seed makes another one", async () => {
  const draw = async (seed: number): Promise<string | undefined> => {
    const response = await post(text, "/v1/chat/completions", { ...CHAT, temperature: 1.5, seed });
    return ChatCompletion.parse(await response.json()).choices[0]?.message.content;
  };
  const [first, again, other] = await Promise.all([draw(7), draw(7), draw(8)]);
  expect(again).toBe(first);
  expect(other).not.toBe(first);
});

test("a stop string taken from the answer cuts it there", async () => {
  const whole = ChatCompletion.parse(await (await post(text, "/v1/chat/completions", CHAT)).json());
  const content = whole.choices[0]?.message.content ?? "";
  const stop = content.slice(10, 13);
  for (const stream of [false, true]) {
    const response = await post(text, "/v1/chat/completions", { ...CHAT, stop: [stop], stream });
    const chunks = stream ? await events(response, ChatCompletionChunk) : [];
    const got = stream
      ? chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("")
      : ChatCompletion.parse(await response.json()).choices[0]?.message.content;
    expect(got).toBe(content.slice(0, content.indexOf(stop)));
  }
});

test("the deeper exit costs more layers for the same number of tokens", async () => {
  const totals = await Promise.all(
    TINY_EXITS.map(async (depth) => {
      const body = { model: "fathom", prompt: [5, 9, 12], max_tokens: 3, temperature: 0, fathom: { depth } };
      const { fathom } = Completion.parse(await (await post(tokens, "/v1/completions", body)).json());
      return fathom?.cost.layer_tokens ?? 0;
    }),
  );
  expect(totals).toEqual([...totals].sort((a, b) => a - b));
  expect(new Set(totals).size).toBe(TINY_EXITS.length);
});

test("models list parameters and bytes per exit of what is loaded", async () => {
  const response = await fetch(`${text.url}/v1/models`, { headers: { authorization: `Bearer ${SECRET}` } });
  const [model] = ModelList.parse(await response.json()).data;
  const h = 96;
  const perLayer = 2 * h + h * (6 + 2 * 3) * 16 + h * h + 3 * h * 160;
  expect(model?.fathom?.exits).toEqual(
    TINY_EXITS.map((depth) => {
      const parameters = 320 * h + depth * perLayer + h;
      return { depth, parameters, bytes: parameters * 4 };
    }),
  );
});

test("requests beyond what may run and wait are refused, the others are answered", async () => {
  const small = await serviceProcess(checkpoints.text.dir, [
    "--threads",
    "1",
    "--max-concurrent",
    "1",
    "--max-waiting",
    "1",
  ]);
  try {
    const body = JSON.stringify({ ...CHAT, max_tokens: 150 });
    const headers = { "content-type": "application/json", authorization: `Bearer ${SECRET}` };
    const responses = await Promise.all(
      Array.from({ length: 8 }, () => fetch(`${small.url}/v1/chat/completions`, { method: "POST", headers, body })),
    );
    const refused = responses.filter(({ status }) => status === 429);
    expect(responses.filter(({ status }) => status === 200).length).toBeGreaterThanOrEqual(2);
    expect(refused.length).toBeGreaterThan(0);
    for (const response of refused) {
      expect(Number(response.headers.get("retry-after"))).toBeGreaterThan(0);
      expect(await response.json()).toMatchObject({ error: { code: "overloaded" } });
    }
  } finally {
    await small.stop();
  }
});

test("a service of some exits describes and runs those alone", async () => {
  const shallow = await serviceProcess(checkpoints.tokens.dir, ["--threads", "1", "--exits", "2,6"]);
  try {
    const headers = { "content-type": "application/json", authorization: `Bearer ${SECRET}` };
    const list = ModelList.parse(await (await fetch(`${shallow.url}/v1/models`, { headers })).json());
    expect(list.data[0]?.fathom).toMatchObject({ layers: 6, exits: [{ depth: 2 }, { depth: 6 }] });
    const run = (fathom: object): Promise<Response> =>
      fetch(`${shallow.url}/v1/completions`, {
        method: "POST",
        headers,
        body: JSON.stringify({ model: TINY_NAME, prompt: [5], max_tokens: 2, fathom }),
      });
    expect(await (await run({})).json()).toMatchObject({ fathom: { depth: 6 } });
    expect(await (await run({ depth: 8 })).json()).toMatchObject({
      error: { code: "invalid_depth", message: expect.stringContaining("2, 6") },
    });
  } finally {
    await shallow.stop();
  }
});
