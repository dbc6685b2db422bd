import { ApiError, summarizeLayers } from "@fathom/shared";
import fc from "fast-check";
import { expect, test } from "vitest";
import { generateText, type TextEvent, type TextRequest } from "./generate-text.ts";
import { ScriptedEngine } from "./testing/scripted-engine.ts";
import { tinyTokenizer } from "./testing/tiny-tokenizer.ts";
import { TextModel } from "./text-model.ts";

const tiny = tinyTokenizer();
const model = TextModel.from(tiny.json, tiny.config);

function request(overrides: Partial<TextRequest> = {}): TextRequest {
  return {
    id: "a",
    prompt: [5, 9, 12],
    depth: 4,
    sampling: { temperature: 0, topP: 1, seed: 0 },
    maxTokens: 100,
    stopTokenIds: [2],
    stop: [],
    continues: false,
    reason: "requested",
    price: 0,
    perTokenLayers: false,
    ...overrides,
  };
}

async function all(events: AsyncIterable<TextEvent>): Promise<TextEvent[]> {
  const list: TextEvent[] = [];
  for await (const event of events) list.push(event);
  return list;
}

function join(events: readonly TextEvent[]): { text: string; tokens: number[]; layers: number[] } {
  return {
    text: events.map(({ text }) => text).join(""),
    tokens: events.flatMap(({ tokens }) => tokens),
    layers: events.flatMap(({ layers }) => layers),
  };
}

test("the pieces join to the text, with every token and its layers exactly once", async () => {
  const tokens = model.encode("the cat sat on a 😀 mat");
  const events = await all(generateText(new ScriptedEngine({ tokens }), model, request()));
  expect(join(events)).toEqual({ text: "the cat sat on a 😀 mat", tokens, layers: tokens.map(() => 4) });
  expect(events.at(-1)).toMatchObject({
    type: "end",
    finishReason: "stop",
    usage: { prompt_tokens: 3, completion_tokens: tokens.length, total_tokens: 3 + tokens.length },
  });
});

test("the account sums layers, timing and cost up", async () => {
  const tokens = model.encode("hello there");
  const options = request({ price: 1500, perTokenLayers: true, reason: "budget" });
  const end = (await all(generateText(new ScriptedEngine({ tokens }), model, options))).at(-1);
  const n = tokens.length;
  expect(end).toMatchObject({
    fathom: {
      depth: 4,
      exit: "fixed",
      reason: "budget",
      layers: summarizeLayers(
        tokens.map(() => 4),
        true,
      ),
      timing: {
        queue_ms: 1,
        prefill_ms: 2,
        time_to_first_token_ms: 3,
        decode_ms: 40,
        total_ms: 43,
        inter_token_ms_mean: expect.closeTo(40 / (n - 1), 3),
        tokens_per_second: expect.closeTo(((n - 1) / 40) * 1000, 3),
      },
      cost: { layer_tokens: 3 * 4 + n * 4, micro_usd: Math.ceil(((3 * 4 + n * 4) * 1500) / 1000) },
    },
  });
});

test("the policy, its bounds, the priority and the time limit reach the engine, and nothing that is not its own", async () => {
  const engine = new ScriptedEngine({ tokens: [70] });
  const policy = { type: "confidence" as const, thresholds: { 2: 0.9 } };
  const priority = { class: "batch" as const, weight: 3 };
  const given = request({ policy, minDepth: 2, priority, timeoutMs: 5000 });
  const { stop: _s, continues: _c, reason: _r, price: _p, perTokenLayers: _l, ...expected } = given;
  await all(generateText(engine, model, given));
  expect(engine.requests).toEqual([expected]);
});

test("a confident answer says so, with the layers that its tokens used", async () => {
  const script = { tokens: [70, 71, 72], layers: [2, 4, 2] };
  const policy = { type: "confidence" as const, thresholds: { 2: 0.9 } };
  const end = (await all(generateText(new ScriptedEngine(script), model, request({ policy })))).at(-1);
  expect(end).toMatchObject({
    fathom: { exit: "confidence", depth: 4, layers: { total: 8, min: 2, max: 4 }, cost: { layer_tokens: 3 * 4 + 8 } },
  });
});

test("a drafted answer tells the draft from the tokens that count", async () => {
  const draft = { depth: 2, proposed: 5, accepted: 3 };
  const policy = { type: "speculative" as const, draftDepth: 2 };
  const events = await all(
    generateText(new ScriptedEngine({ tokens: [70], account: { draft } }), model, request({ policy })),
  );
  expect(events.at(-1)).toMatchObject({
    fathom: { exit: "speculative", layers: { total: 4, draft }, cost: { layer_tokens: 4 * 4 } },
  });
  const fixed = (await all(generateText(new ScriptedEngine({ tokens: [70] }), model, request()))).at(-1);
  expect(fixed).not.toHaveProperty("fathom.layers.draft");
});

test("the prompt counts at the depth that prefilled it, cached or not", async () => {
  const account = { promptDepth: 2, cachedTokens: 2 };
  const end = (await all(generateText(new ScriptedEngine({ tokens: [70], account }), model, request()))).at(-1);
  expect(end).toMatchObject({
    usage: { prompt_tokens: 3, prompt_tokens_details: { cached_tokens: 2 } },
    fathom: { cost: { layer_tokens: 3 * 2 + 4 } },
  });
});

test("an answer whose time is up ends with an error, after what was decided until then", async () => {
  const before = (index: number): Promise<void> => (index < 2 ? Promise.resolve() : new Promise(() => {}));
  const engine = new ScriptedEngine({ tokens: model.encode("abc"), before });
  let text = "";
  const run = async (): Promise<void> => {
    for await (const event of generateText(engine, model, request({ timeoutMs: 50 }))) text += event.text;
  };
  await expect(run()).rejects.toMatchObject({ code: "timeout", message: expect.stringContaining("50 ms") });
  expect(text).toBe("ab");
});

test("an answer of one token has no rate, one of none has no layers", async () => {
  const one = (await all(generateText(new ScriptedEngine({ tokens: [70] }), model, request()))).at(-1);
  expect(one).toMatchObject({ fathom: { timing: { tokens_per_second: 0, inter_token_ms_mean: 0 } } });
  const none = await all(generateText(new ScriptedEngine({ tokens: [] }), model, request()));
  expect(none).toMatchObject([
    { type: "end", text: "", tokens: [], finishReason: "stop", usage: { completion_tokens: 0 } },
  ]);
});

test("the length limit is told apart from a stop token", async () => {
  const tokens = model.encode("one two three");
  const end = (await all(generateText(new ScriptedEngine({ tokens }), model, request({ maxTokens: 2 })))).at(-1);
  expect(end).toMatchObject({ finishReason: "length", usage: { completion_tokens: 2 } });
});

test("a stop string ends the answer, is cut, and cancels the engine's request", async () => {
  const tokens = model.encode("the cat\n\nUser: and so on, for a long while");
  const engine = new ScriptedEngine({ tokens });
  const events = await all(generateText(engine, model, request({ stop: ["\n\nUser:"] })));
  const { text, tokens: used } = join(events);
  expect(text).toBe("the cat");
  expect(events.at(-1)).toMatchObject({ finishReason: "stop", usage: { completion_tokens: used.length } });
  expect(model.detokenizer({ continues: false }).push(used.at(-1) ?? 0)).toBe(":");
  expect(engine.cancelled).toBe(1);
});

test("text held back for a stop string that does not come is sent at the end", async () => {
  const tokens = model.encode("a#");
  const events = await all(generateText(new ScriptedEngine({ tokens }), model, request({ stop: ["##"] })));
  expect(join(events)).toMatchObject({ text: "a#", tokens });
});

test("an answer that ends inside a character ends with a replacement character", async () => {
  const tokens = model.encode("😀").slice(0, 1);
  const events = await all(generateText(new ScriptedEngine({ tokens }), model, request()));
  expect(events).toMatchObject([{ type: "end", text: "\ufffd", tokens }]);
});

test("whatever the tokens, the text is that of all tokens up to the stop string", async () => {
  const token = fc.integer({ min: 0, max: 319 }).filter((id) => id !== 2);
  const stops = fc.array(fc.constantFrom("e", "th", "\ufffd", " a", "in"), { maxLength: 2 });
  await fc.assert(
    fc.asyncProperty(fc.array(token, { maxLength: 20 }), stops, async (tokens, stop) => {
      const events = await all(generateText(new ScriptedEngine({ tokens }), model, request({ stop })));
      const { text, tokens: used, layers } = join(events);
      const detokenizer = model.detokenizer({ continues: false });
      const whole = tokens.map((id) => detokenizer.push(id)).join("") + detokenizer.end();
      expect(whole.startsWith(text)).toBe(true);
      expect(stop.some((s) => text.includes(s))).toBe(false);
      if (text.length < whole.length) {
        expect(stop.some((s) => whole.startsWith(s, text.length))).toBe(true);
        expect(events.at(-1)).toMatchObject({ finishReason: "stop" });
      }
      expect(tokens.slice(0, used.length)).toEqual(used);
      expect(layers).toHaveLength(used.length);
    }),
  );
});

test("without a text model the pieces carry the tokens", async () => {
  const events = await all(generateText(new ScriptedEngine({ tokens: [7, 8] }), undefined, request()));
  expect(join(events)).toEqual({ text: "", tokens: [7, 8], layers: [4, 4] });
  expect(events).toHaveLength(3);
});

test("an aborted request ends with the abort's reason, or as cancelled", async () => {
  const engine = new ScriptedEngine({ tokens: [70, 71], before: () => new Promise(() => {}) });
  const draining = new ApiError("draining", "shutting down");
  for (const [reason, code] of [
    [draining, "draining"],
    [undefined, "cancelled"],
  ] as const) {
    const abort = new AbortController();
    const events = all(generateText(engine, model, request(), abort.signal));
    abort.abort(reason);
    await expect(events).rejects.toMatchObject({ name: "ApiError", code });
  }
  expect(engine.cancelled).toBe(2);
});

test("leaving the loop early cancels the engine's request", async () => {
  const engine = new ScriptedEngine({ tokens: model.encode("a long answer") });
  for await (const event of generateText(engine, model, request())) {
    expect(event.type).toBe("piece");
    break;
  }
  expect(engine.cancelled).toBe(1);
});
