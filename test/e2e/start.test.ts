import { existsSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { createServer, type Server } from "node:net";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { createOpenAICompatible } from "@ai-sdk/openai-compatible";
import { ChatCompletion, ErrorBody, ModelList } from "@fathom/shared";
import { generateText, streamText } from "ai";
import OpenAI from "openai";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type TinyCheckpoint, tinyCheckpoint } from "../service/helpers/tiny-checkpoint.ts";
import { type DemoProcess, spawnStart, startDemo } from "./demo.ts";

let checkpoint: TinyCheckpoint;
let state: string;
let running: DemoProcess;

beforeAll(async () => {
  checkpoint = await tinyCheckpoint();
  state = await mkdtemp(join(tmpdir(), "fathom-e2e-"));
  running = await startDemo(state, ["--checkpoint", checkpoint.dir]);
});

afterAll(async () => {
  running?.child.kill("SIGTERM");
  await checkpoint?.remove();
  await rm(state, { recursive: true, force: true });
});

const body = {
  model: "fathom",
  messages: [{ role: "user" as const, content: "the cat" }],
  temperature: 0,
  max_tokens: 12,
};

function chat(key: string, request: object, url = running.demo.edge): Promise<Response> {
  return fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
    body: JSON.stringify(request),
  });
}

async function answer(key: string, request: object): Promise<ChatCompletion> {
  const response = await chat(key, request);
  expect(response.status).toBe(200);
  return ChatCompletion.parse(await response.json());
}

async function load(): Promise<unknown> {
  return (await fetch(`${running.demo.service}/healthz`)).json();
}

const openai = () => new OpenAI({ baseURL: `${running.demo.edge}/v1`, apiKey: running.demo.keys.pro, maxRetries: 0 });

test("prints a curl for each plan, ready to paste, and the URLs", async () => {
  const { demo } = running;
  // The file is written just before the text is printed.
  await expect.poll(running.output).toContain("Ctrl-C");
  for (const key of Object.values(demo.keys)) expect(running.output()).toContain(`authorization: Bearer ${key}`);
  expect(running.output()).toContain(demo.edge);
});

test("each plan runs at its depth and says why", async () => {
  const { keys } = running.demo;
  const depths = await Promise.all(
    [keys.free, keys.pro, keys.enterprise].map(async (key) => (await answer(key, body)).fathom),
  );
  expect(depths.map(({ depth, reason }) => ({ depth, reason }))).toEqual([
    // 80 and 90 percent of eight layers lie above the same exit.
    { depth: 6, reason: "plan" },
    { depth: 6, reason: "plan" },
    { depth: 8, reason: "plan" },
  ]);
});

test("a wished depth is served, accounted and shown in the headers", async () => {
  const response = await chat(running.demo.keys.enterprise, { ...body, fathom: { depth: 4, per_token_layers: true } });
  const { fathom, usage } = ChatCompletion.parse(await response.json());
  expect(fathom).toMatchObject({
    depth: 4,
    reason: "requested",
    layers: { total: 48, mean: 4, histogram: { "4": 12 } },
  });
  expect(fathom.layers.per_token).toEqual(new Array(12).fill(4));
  expect(fathom.cost.layer_tokens).toBe(usage.prompt_tokens * 4 + 48);
  expect(response.headers.get("x-fathom-depth")).toBe("4");
  expect(response.headers.get("x-fathom-reason")).toBe("requested");
  expect(response.headers.get("x-request-id")).toBeTruthy();
  expect(response.headers.get("x-ratelimit-remaining-requests")).toMatch(/^\d+$/);
});

test("the edge's answer is the service's, token for token, at the same depth", async () => {
  const streamed: string[] = [];
  for await (const chunk of await openai().chat.completions.create({ ...body, stream: true })) {
    streamed.push(chunk.choices[0]?.delta.content ?? "");
  }
  expect(streamed.join("")).toBe((await answer(running.demo.keys.pro, body)).choices[0]?.message.content);
});

describe("real clients, unchanged", () => {
  test("openai: chat, completion, models", async () => {
    const completion = await openai().chat.completions.create(body);
    expect(completion.usage?.completion_tokens).toBe(12);
    const text = await openai().completions.create({ model: "fathom", prompt: "the cat", max_tokens: 5 });
    expect(text.usage?.completion_tokens).toBe(5);
    expect((await openai().models.list()).data.length).toBeGreaterThan(0);
  });

  test("openai: aborting a stream frees the engine behind the edge", async () => {
    const stream = await openai().chat.completions.create({ ...body, max_tokens: 200, stream: true });
    for await (const _ of stream) stream.controller.abort();
    await expect.poll(load, { timeout: 10_000 }).toEqual({ status: "ok", load: { running: 0, waiting: 0 } });
  });

  test("openai: errors arrive as the client's own classes", async () => {
    const wrong = new OpenAI({ baseURL: `${running.demo.edge}/v1`, apiKey: "fk_nobody", maxRetries: 0 });
    await expect(wrong.chat.completions.create(body)).rejects.toThrow(OpenAI.AuthenticationError);
    await expect(openai().chat.completions.create({ ...body, model: "gpt" })).rejects.toThrow(OpenAI.NotFoundError);
    await expect(openai().chat.completions.create({ ...body, temperature: -1 })).rejects.toThrow(
      OpenAI.BadRequestError,
    );
  });

  test("the AI SDK: whole and streamed", async () => {
    const { edge, keys } = running.demo;
    const provider = createOpenAICompatible({ name: "fathom", baseURL: `${edge}/v1`, apiKey: keys.pro });
    const call = { model: provider("fathom"), prompt: "the cat", temperature: 0, maxOutputTokens: 12, maxRetries: 0 };
    const whole = await generateText(call);
    expect(whole.usage.outputTokens).toBe(12);
    const stream = streamText(call);
    let text = "";
    for await (const piece of stream.textStream) text += piece;
    expect(text).toBe(whole.text);
  });
});

describe("what cannot be served is refused by name", () => {
  test.each<[string, number, string, string | null, object]>([
    ["an unknown depth", 400, "invalid_depth", "fathom.depth", { fathom: { depth: 5 } }],
    ["a depth above the plan", 403, "depth_not_allowed", "fathom.depth", { fathom: { depth: 8 } }],
    ["no messages", 400, "invalid_request", "messages", { messages: [] }],
    ["an unknown model", 404, "model_not_found", "model", { model: "gpt" }],
    ["a negative maximum", 400, "invalid_request", "max_tokens", { max_tokens: -1 }],
    [
      "a prompt beyond the context",
      400,
      "context_length_exceeded",
      "messages",
      { messages: [{ role: "user", content: "word ".repeat(400) }] },
    ],
  ])("%s", async (_, status, code, param, change) => {
    const response = await chat(running.demo.keys.pro, { ...body, ...change });
    const { error } = ErrorBody.parse(await response.json());
    expect({ status: response.status, code: error.code, param: error.param }).toEqual({ status, code, param });
  });

  test("no key at the edge, and no token at the service", async () => {
    expect((await fetch(`${running.demo.edge}/v1/models`)).status).toBe(401);
    expect((await chat(running.demo.keys.pro, body, running.demo.service)).status).toBe(401);
    expect(await load()).toEqual({ status: "ok", load: { running: 0, waiting: 0 } });
  });
});

test("the models' exits come through the edge", async () => {
  const headers = { authorization: `Bearer ${running.demo.keys.free}` };
  const { data } = ModelList.parse(await (await fetch(`${running.demo.edge}/v1/models`, { headers })).json());
  expect(data.find(({ fathom }) => fathom)?.fathom?.exits.map(({ depth }) => depth)).toEqual([2, 4, 6, 8]);
});

describe("starting", () => {
  let blocker: Server;
  let port: number;

  beforeAll(async () => {
    blocker = createServer();
    await new Promise<void>((resolve) => blocker.listen(0, "127.0.0.1", resolve));
    port = (blocker.address() as { port: number }).port;
  });

  afterAll(() => void blocker.close());

  async function failure(args: string[]): Promise<string> {
    const scratch = await mkdtemp(join(tmpdir(), "fathom-e2e-"));
    const { exit, output } = spawnStart(["--state", scratch, ...args]);
    expect(await exit).toBe(1);
    await rm(scratch, { recursive: true });
    return output();
  }

  test("a port in use is named with its option", async () => {
    expect(await failure(["--checkpoint", checkpoint.dir, "--port", String(port)])).toContain(`port ${port} is in use`);
  });

  test("a missing checkpoint is named", async () => {
    expect(await failure(["--checkpoint", "nowhere"])).toContain("no nested checkpoint in 'nowhere'");
  });

  test("an option that is none", async () => {
    expect(await failure(["--port", "http"])).toContain("--port takes a port number, not 'http'");
  });
});

// Last: it ends the demo.
test("Ctrl-C ends everything and removes demo.json", async () => {
  const { edge, service } = running.demo;
  expect(await running.interrupt()).toBe(0);
  expect(existsSync(join(state, "demo.json"))).toBe(false);
  for (const url of [edge, service]) await expect(fetch(`${url}/healthz`)).rejects.toThrow();
});
