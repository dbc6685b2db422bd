import fc from "fast-check";
import { expect, test } from "vitest";
import { ChatCompletionRequest, CompletionRequest, contentText } from "./completions.ts";
import { ApiError, ErrorBody, ErrorCode, fromZodError } from "./errors.ts";
import { summarizeLayers } from "./fathom.ts";

const chat = { model: "fathom", messages: [{ role: "user", content: "Hello" }] };

function refusal(schema: typeof ChatCompletionRequest | typeof CompletionRequest, value: unknown): ApiError {
  const { error } = schema.safeParse(value);
  if (!error) throw new Error("accepted");
  return fromZodError(error);
}

test.each([
  ["no messages", { ...chat, messages: [] }, "messages"],
  ["a missing model", { messages: chat.messages }, "model"],
  ["an unknown role", { ...chat, messages: [{ role: "wizard", content: "x" }] }, "messages.0.role"],
  ["content that is a number", { ...chat, messages: [{ role: "user", content: 5 }] }, "messages.0.content"],
  ["a negative temperature", { ...chat, temperature: -1 }, "temperature"],
  ["a huge temperature", { ...chat, temperature: 1e300 }, "temperature"],
  ["top_p of zero", { ...chat, top_p: 0 }, "top_p"],
  ["max_tokens of zero", { ...chat, max_tokens: 0 }, "max_tokens"],
  ["a fraction of a token", { ...chat, max_tokens: 1.5 }, "max_tokens"],
  ["several choices", { ...chat, n: 2 }, "n"],
  ["a depth as text", { ...chat, fathom: { depth: "deep" } }, "fathom.depth"],
  ["a depth of zero", { ...chat, fathom: { depth: 0 } }, "fathom.depth"],
  ["a threshold above one", { ...chat, fathom: { threshold: 1.5 } }, "fathom.threshold"],
  ["a threshold in words", { ...chat, fathom: { exit: "confidence", threshold: "high" } }, "fathom.threshold"],
  ["a threshold without a policy", { ...chat, fathom: { threshold: 0.9 } }, "fathom.threshold"],
  ["a threshold for a fixed depth", { ...chat, fathom: { exit: "fixed", threshold: 0.9 } }, "fathom.threshold"],
  ["a threshold for drafts", { ...chat, fathom: { exit: "speculative", threshold: "calibrated" } }, "fathom.threshold"],
  ["an unknown exit policy", { ...chat, fathom: { exit: "entropy" } }, "fathom.exit"],
  ["an unknown part of the dial", { ...chat, fathom: { dept: 12 } }, "fathom.dept"],
  ["stream as text", { ...chat, stream: "yes" }, "stream"],
  ["an empty stop", { ...chat, stop: "" }, "stop"],
])("refuses %s and names the field", (_, value, param) => {
  expect(refusal(ChatCompletionRequest, value)).toMatchObject({ code: "invalid_request", param, status: 400 });
});

test("accepts what OpenAI's clients send, nulls and unknown fields included", () => {
  const parts = [
    { type: "text", text: "Hel" },
    { type: "text", text: "lo" },
  ];
  const parsed = ChatCompletionRequest.parse({
    ...chat,
    messages: [{ role: "user", content: parts }],
    temperature: null,
    stop: ["\n"],
    logit_bias: {},
    stream_options: { include_usage: true },
    fathom: { depth: "auto", per_token_layers: true },
  });
  expect(contentText(parsed.messages[0]?.content ?? "")).toBe("Hello");
  expect(CompletionRequest.parse({ model: "m", prompt: [1, 2] }).prompt).toEqual([1, 2]);
  expect(refusal(CompletionRequest, { model: "m", prompt: "" }).param).toBe("prompt");
  expect(refusal(CompletionRequest, { model: "m", prompt: [-1] }).param).toBe("prompt.0");
});

test.each([
  ["frequency_penalty", 0.5],
  ["presence_penalty", -1],
  ["logit_bias", { "50256": -100 }],
  ["logprobs", true],
  ["top_logprobs", 3],
  ["tools", [{ type: "function", function: { name: "f" } }]],
  ["tool_choice", "required"],
  ["functions", [{ name: "f" }]],
  ["function_call", { name: "f" }],
  ["response_format", { type: "json_object" }],
  ["modalities", ["text", "audio"]],
  ["audio", { voice: "alloy" }],
  ["web_search_options", {}],
])("refuses what a chat would be answered differently with: %s", (field, value) => {
  const error = refusal(ChatCompletionRequest, { ...chat, [field]: value });
  expect(error).toMatchObject({ code: "invalid_request", param: field });
  expect(error.message).toContain("is not supported");
});

test.each([
  ["logprobs", 0],
  ["best_of", 2],
  ["suffix", "end"],
  ["echo", true],
  ["logit_bias", { "1": 1 }],
])("refuses what a completion would be answered differently with: %s", (field, value) => {
  const error = refusal(CompletionRequest, { model: "m", prompt: "x", [field]: value });
  expect(error).toMatchObject({ code: "invalid_request", param: field });
});

test("accepts values that ask for nothing, and fields that change no answer", () => {
  const either = { n: 1, frequency_penalty: 0, presence_penalty: 0, logit_bias: {}, logprobs: false };
  const idle = { store: true, metadata: { a: "b" }, service_tier: "auto", parallel_tool_calls: false };
  const inChat = { top_logprobs: 0, tools: [], tool_choice: "auto", functions: [], response_format: { type: "text" } };
  const parsed = ChatCompletionRequest.parse({ ...chat, ...either, ...idle, ...inChat, modalities: ["text"] });
  expect(parsed).not.toHaveProperty("store");
  CompletionRequest.parse({ model: "m", prompt: "x", ...either, ...idle, best_of: 1, suffix: "", echo: false });
  const fields = [...Object.keys(either), ...Object.keys(inChat), "audio", "modalities"];
  ChatCompletionRequest.parse({ ...chat, ...Object.fromEntries(fields.map((field) => [field, null])) });
});

test("a threshold goes with a model whose name asks for confidence", () => {
  const named = { ...chat, model: "fathom-confidence", fathom: { threshold: 0.9 } };
  expect(ChatCompletionRequest.parse(named).fathom).toEqual({ threshold: 0.9 });
  expect(refusal(ChatCompletionRequest, { ...named, model: "fathom-fast" }).param).toBe("fathom.threshold");
  const other = { ...named, fathom: { threshold: 0.9, exit: "fixed" } };
  expect(refusal(ChatCompletionRequest, other).param).toBe("fathom.threshold");
});

test("accepts every exit policy, with what belongs to it", () => {
  for (const fathom of [
    { exit: "fixed", depth: 24 },
    { exit: "confidence" },
    { exit: "confidence", threshold: "calibrated", min_depth: 12, max_depth: 24 },
    { exit: "confidence", threshold: 0 },
    { exit: "speculative", depth: 30, min_depth: 12 },
  ]) {
    expect(ChatCompletionRequest.parse({ ...chat, fathom }).fathom).toEqual(fathom);
  }
});

test("whatever arrives, a schema accepts it or names what is wrong, and never pollutes a prototype", () => {
  fc.assert(
    fc.property(
      fc.jsonValue(),
      fc.constantFrom("messages", "fathom", "temperature", "__proto__", "constructor"),
      (value, key) => {
        const body = JSON.parse(
          JSON.stringify({ ...chat, [key]: value }).replace(`"${key}"`, JSON.stringify(key)),
        ) as unknown;
        for (const candidate of [value, body]) {
          const { error } = ChatCompletionRequest.safeParse(candidate);
          if (!error) continue;
          const apiError = fromZodError(error);
          expect(apiError.message.length).toBeGreaterThan(0);
          expect(ErrorBody.safeParse(apiError.toBody()).success).toBe(true);
        }
        expect(({} as Record<string, unknown>).polluted).toBeUndefined();
      },
    ),
  );
});

test("every code has a status and a type", () => {
  for (const code of ErrorCode.options) {
    const error = new ApiError(code, "x", { param: "p" });
    expect(error.status).toBeGreaterThanOrEqual(400);
    expect(error.toBody().error).toMatchObject({ code, param: "p", message: "x" });
    expect(error.toBody().error.type).toBeTruthy();
  }
});

test("layers are summed up as the contract shows them", () => {
  expect(summarizeLayers([12, 24, 24], true)).toEqual({
    total: 60,
    mean: 20,
    min: 12,
    max: 24,
    histogram: { "12": 1, "24": 2 },
    per_token: [12, 24, 24],
  });
  expect(summarizeLayers([], false)).toEqual({ total: 0, mean: 0, min: 0, max: 0, histogram: {} });
});
