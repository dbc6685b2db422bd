import { ChatCompletion, ChatCompletionChunk, type Manifest, PRIORITY_HEADER } from "@fathom/shared";
import { expect, onTestFinished, test } from "vitest";
import { z } from "zod";
import { edgeToken } from "./testing/edge-token.ts";
import {
  errorOf,
  parseSse,
  post,
  type ScriptedServiceOptions,
  scriptedService,
  TINY_TEXT,
} from "./testing/scripted-service.ts";

const SECRET = "a-secret-of-sixteen-or-more";
const PATH = "/v1/chat/completions";
const CHAT = { model: "tiny", messages: [{ role: "user", content: "Hi" }] };
const CALIBRATED: Partial<Manifest> = { thresholds: { 2: 0.95, 4: 0.9, 6: 0.8 } };

async function start(options: ScriptedServiceOptions = {}) {
  const started = await scriptedService(options);
  onTestFinished(() => started.close());
  return started;
}

test.each([
  [
    { exit: "confidence" },
    { depth: 8, minDepth: 2, policy: { type: "confidence", thresholds: CALIBRATED.thresholds } },
  ],
  [
    { exit: "confidence", threshold: 0.5, min_depth: 4, max_depth: 7 },
    { depth: 6, minDepth: 4, policy: { type: "confidence", thresholds: { 4: 0.5 } } },
  ],
  [{ exit: "speculative" }, { depth: 8, policy: { type: "speculative", draftDepth: 2 } }],
  [
    { exit: "speculative", depth: 6, min_depth: 4 },
    { depth: 6, policy: { type: "speculative", draftDepth: 4 } },
  ],
  [
    { exit: "speculative", depth: 2 },
    { depth: 2, policy: { type: "fixed" } },
  ],
  [{ depth: 4 }, { depth: 4, policy: { type: "fixed" } }],
])("%j reaches the engine as what it means, and the answer says what ran", async (fathom, expected) => {
  const { url, engine } = await start({ manifest: CALIBRATED });
  const response = await post(url + PATH, { ...CHAT, fathom });
  expect(engine.requests).toMatchObject([expected]);
  expect(ChatCompletion.parse(await response.json()).fathom).toMatchObject({
    depth: expected.depth,
    exit: expected.policy.type,
  });
});

test("a draft is told apart from the layers of the answer, whole and streamed", async () => {
  const draft = { depth: 2, proposed: 9, accepted: 6 };
  const { url } = await start({ script: { tokens: TINY_TEXT.encode("abc"), account: { draft, cachedTokens: 5 } } });
  const body = { ...CHAT, fathom: { exit: "speculative" } };
  const whole = ChatCompletion.parse(await (await post(url + PATH, body)).json());
  expect(whole.fathom.layers).toMatchObject({ total: 3 * 8, draft });
  expect(whole.usage.prompt_tokens_details).toEqual({ cached_tokens: 5 });
  const streaming = { ...body, stream: true, stream_options: { include_usage: true } };
  const { events } = parseSse(await (await post(url + PATH, streaming)).text());
  const last = z.array(ChatCompletionChunk).parse(events).at(-1);
  expect(last).toMatchObject({ usage: whole.usage, fathom: { layers: whole.fathom.layers, cost: whole.fathom.cost } });
});

test("each chunk carries the depths at which its own tokens were decided", async () => {
  const script = { tokens: TINY_TEXT.encode("abc"), layers: [2, 8, 4] };
  const { url } = await start({ script, manifest: CALIBRATED });
  const body = { ...CHAT, stream: true, fathom: { exit: "confidence" } };
  const { events } = parseSse(await (await post(url + PATH, body)).text());
  const chunks = z.array(ChatCompletionChunk).parse(events);
  expect(chunks.flatMap(({ choices }) => choices[0]?.layers_used ?? [])).toEqual([2, 8, 4]);
  expect(chunks.at(-1)?.fathom?.layers).toMatchObject({ total: 14, histogram: { 2: 1, 4: 1, 8: 1 } });
});

test("the edge's token caps every policy, and its priority reaches the engine", async () => {
  const { url, engine } = await start({ secret: SECRET, manifest: CALIBRATED });
  const priority = { class: "batch" as const, weight: 4 };
  const ask = async (fathom: object) => {
    const body = { ...CHAT, fathom };
    return await post(url + PATH, body, { headers: await edgeToken(SECRET, body, { max_depth: 4, priority }) });
  };
  await ask({ exit: "confidence" });
  const deep = await ask({ exit: "speculative", depth: 8 });
  expect(await errorOf(deep)).toMatchObject({ status: 403, code: "depth_not_allowed", param: "fathom.depth" });
  expect(engine.requests).toMatchObject([{ depth: 4, policy: { thresholds: { 2: 0.95 } }, priority }]);
});

test("a direct caller may wait behind others", async () => {
  const { url, engine } = await start();
  await post(url + PATH, CHAT, { headers: { [PRIORITY_HEADER]: "batch" } });
  await post(url + PATH, CHAT);
  expect(engine.requests.map(({ priority }) => priority)).toEqual([
    { class: "batch", weight: 1 },
    { class: "interactive", weight: 1 },
  ]);
});
