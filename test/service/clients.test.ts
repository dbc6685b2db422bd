import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { generateText, streamText } from "ai";
import OpenAI from "openai";
import { afterAll, beforeAll, expect, test } from "vitest";
import { z } from "zod";
import { SECRET, type ServiceProcess, serviceProcess } from "./helpers/service-process.ts";
import { TINY_NAME, type TinyCheckpoint, tinyCheckpoint } from "./helpers/tiny-checkpoint.ts";

let checkpoint: TinyCheckpoint;
let service: ServiceProcess;
let client: OpenAI;

beforeAll(async () => {
  checkpoint = await tinyCheckpoint();
  service = await serviceProcess(checkpoint.dir, ["--threads", "1"]);
  client = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: SECRET, maxRetries: 0 });
});

afterAll(async () => {
  await service?.stop();
  await checkpoint?.remove();
});

const messages = [{ role: "user" as const, content: "Tell me about the cat." }];
const request = { model: TINY_NAME, messages, temperature: 0, max_tokens: 20 };

const load = async (): Promise<unknown> => (await fetch(`${service.url}/healthz`)).json();
const IDLE = { status: "ok", load: { running: 0, waiting: 0 } };

/** The text that plain HTTP gives for the same request. */
async function expected(): Promise<string> {
  const response = await fetch(`${service.url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${SECRET}` },
    body: JSON.stringify(request),
  });
  const body = (await response.json()) as { choices: { message: { content: string } }[] };
  return body.choices[0]?.message.content ?? "";
}

test("openai: chat", async () => {
  const completion = await client.chat.completions.create(request);
  expect(completion.choices[0]?.message).toMatchObject({ role: "assistant", content: await expected() });
  expect(completion.usage?.completion_tokens).toBe(20);
  expect(completion).toHaveProperty("fathom.depth", 8);
});

test("openai: the depth dial passes through unknown to the client", async () => {
  const dialled = { ...request, fathom: { depth: 4 } };
  expect(await client.chat.completions.create(dialled)).toHaveProperty("fathom.layers.max", 4);
});

test("openai: streamed chat", async () => {
  const stream = await client.chat.completions.create({
    ...request,
    stream: true,
    stream_options: { include_usage: true },
  });
  let text = "";
  let usage: OpenAI.CompletionUsage | null | undefined;
  let account: unknown;
  for await (const chunk of stream) {
    text += chunk.choices[0]?.delta.content ?? "";
    usage = chunk.usage ?? usage;
    if ("fathom" in chunk) account = chunk.fathom;
  }
  expect(text).toBe(await expected());
  expect(usage?.completion_tokens).toBe(20);
  expect(account).toMatchObject({ depth: 8, layers: { total: 160 } });
});

test("openai: the stream helper collects the same answer", async () => {
  const final = await client.chat.completions.stream(request).finalChatCompletion();
  expect(final.choices[0]?.message.content).toBe(await expected());
  expect(final.choices[0]?.finish_reason).toBe("length");
});

test("openai: completion, whole and streamed", async () => {
  const body = { model: TINY_NAME, prompt: "the cat", temperature: 0, max_tokens: 12 };
  const whole = await client.completions.create(body);
  expect(whole.choices[0]?.text).not.toBe("");
  let text = "";
  for await (const chunk of await client.completions.create({ ...body, stream: true })) {
    text += chunk.choices[0]?.text ?? "";
  }
  expect(text).toBe(whole.choices[0]?.text);
});

test("openai: aborting a stream frees the engine", async () => {
  // Several at once, so that none is complete before it is aborted.
  const streams = await Promise.all(
    Array.from({ length: 6 }, () => client.chat.completions.create({ ...request, max_tokens: 180, stream: true })),
  );
  const abandoned = await Promise.all(
    streams.map(async (stream) => {
      let chunks = 0;
      for await (const _ of stream) {
        chunks++;
        if (chunks === 2) stream.controller.abort();
      }
      return chunks;
    }),
  );
  expect(Math.max(...abandoned)).toBeLessThan(100);
  await service.logged((line) => line.error === "cancelled");
  await expect.poll(load).toEqual(IDLE);
});

test("openai: models", async () => {
  const ids: string[] = [];
  for await (const model of client.models.list()) ids.push(model.id);
  expect(ids).toEqual([TINY_NAME]);
  expect(await client.models.retrieve(TINY_NAME)).toHaveProperty("fathom.exits");
});

test("openai: errors arrive as the client's own classes", async () => {
  const wrongKey = new OpenAI({ baseURL: `${service.url}/v1`, apiKey: "wrong", maxRetries: 0 });
  await expect(wrongKey.models.list()).rejects.toThrow(OpenAI.AuthenticationError);
  await expect(client.chat.completions.create({ ...request, model: "gpt" })).rejects.toThrow(OpenAI.NotFoundError);
  const bad = client.chat.completions.create({ ...request, temperature: 3 });
  await expect(bad).rejects.toMatchObject({ status: 400, code: "invalid_request", param: "temperature" });
});

/** The `fathom` field of an answer or of a stream's last chunk, as the SDK's provider metadata. */
const withAccount = z.object({ fathom: z.record(z.string(), z.json()) });
const metadataOf = (value: unknown): { fathom: Record<string, z.core.util.JSONType> } | undefined =>
  withAccount.safeParse(value).data;

const provider = (): ReturnType<typeof createOpenAICompatible> =>
  createOpenAICompatible({
    name: "fathom",
    baseURL: `${service.url}/v1`,
    apiKey: SECRET,
    includeUsage: true,
    metadataExtractor: {
      extractMetadata: async ({ parsedBody }) => metadataOf(parsedBody),
      createStreamExtractor: () => {
        let metadata: ReturnType<typeof metadataOf>;
        return {
          processChunk: (chunk) => {
            metadata = metadataOf(chunk) ?? metadata;
          },
          buildMetadata: () => metadata,
        };
      },
    },
  });

const prompt = "Tell me about the cat.";

test("AI SDK: generateText", async () => {
  const { text, usage, finishReason } = await generateText({
    model: provider()(TINY_NAME),
    prompt,
    temperature: 0,
    maxOutputTokens: 20,
  });
  expect(text).toBe(await expected());
  expect(usage.outputTokens).toBe(20);
  expect(finishReason).toBe("length");
});

test("AI SDK: streamText", async () => {
  const result = streamText({ model: provider()(TINY_NAME), prompt, temperature: 0, maxOutputTokens: 20 });
  let text = "";
  for await (const piece of result.textStream) text += piece;
  expect(text).toBe(await expected());
  expect((await result.usage).outputTokens).toBe(20);
});

test("AI SDK: the depth dial goes in as provider option, the account comes out as metadata", async () => {
  const options = {
    model: provider()(TINY_NAME),
    prompt,
    temperature: 0,
    maxOutputTokens: 3,
    providerOptions: { fathom: { fathom: { depth: 2 } } },
  };
  const whole = await generateText(options);
  expect(whole.providerMetadata).toMatchObject({ fathom: { depth: 2, layers: { total: 6 } } });
  const streamed = streamText(options);
  expect(await streamed.text).toBe(whole.text);
  expect(await streamed.providerMetadata).toMatchObject({ fathom: { depth: 2, layers: { total: 6 } } });
});

test("AI SDK: aborting a stream frees the engine", async () => {
  const abort = new AbortController();
  const result = streamText({
    model: provider()(TINY_NAME),
    prompt,
    temperature: 0,
    maxOutputTokens: 180,
    abortSignal: abort.signal,
    onError: () => {},
  });
  for await (const _ of result.textStream) abort.abort();
  await expect.poll(load).toEqual(IDLE);
});
