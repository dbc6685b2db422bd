import { type ChatCompletionChunk, type Completion, type FathomResponse, summarizeLayers } from "@fathom/shared";

/** What the stub was asked, as far as it matters to its answer. */
export interface StubQuestion {
  chat: boolean;
  model: string;
  depth: number;
  exit: FathomResponse["exit"];
  /** Exit at which tokens may stop, or are drafted. */
  shallowest: number;
  reason: FathomResponse["reason"];
  /** Nano-USD per layer-token. */
  price: number;
  promptTokens: number;
  /** Tokens to answer. */
  tokens: number;
}

const TIMING: FathomResponse["timing"] = {
  queue_ms: 1,
  prefill_ms: 2,
  time_to_first_token_ms: 3,
  decode_ms: 4,
  total_ms: 7,
  inter_token_ms_mean: 1,
  tokens_per_second: 1000,
};

/** Depth at which token `i` is decided: with confidence every other one is sure of itself. */
function layersOf({ exit, depth, shallowest }: StubQuestion, i: number): number {
  return exit === "confidence" && i % 2 === 1 ? shallowest : depth;
}

/** The account of a whole answer. */
export function account(question: StubQuestion): { usage: NonNullable<Completion["usage"]>; fathom: FathomResponse } {
  const { depth, exit, shallowest, reason, price, promptTokens, tokens } = question;
  const layers = summarizeLayers(
    Array.from({ length: tokens }, (_, i) => layersOf(question, i)),
    false,
  );
  const layerTokens = promptTokens * depth + layers.total;
  const draft = { depth: shallowest, proposed: 2 * tokens, accepted: tokens };
  return {
    usage: { prompt_tokens: promptTokens, completion_tokens: tokens, total_tokens: promptTokens + tokens },
    fathom: {
      depth,
      exit,
      reason,
      layers: exit === "speculative" ? { ...layers, draft } : layers,
      timing: TIMING,
      cost: { layer_tokens: layerTokens, micro_usd: Math.ceil((layerTokens * price) / 1000) },
    },
  };
}

const head = (question: StubQuestion) => ({ id: "stub-1", created: 1_700_000_000, model: question.model });

/** The answer in one piece. */
export function wholeAnswer(question: StubQuestion): unknown {
  const text = Array.from({ length: question.tokens }, (_, i) => `w${i}`).join(" ");
  const rest = { index: 0, finish_reason: "stop", logprobs: null };
  return question.chat
    ? {
        ...head(question),
        object: "chat.completion",
        choices: [{ ...rest, message: { role: "assistant", content: text, refusal: null } }],
        ...account(question),
      }
    : { ...head(question), object: "text_completion", choices: [{ ...rest, text }], ...account(question) };
}

/** The chunk of token `i`. */
export function tokenChunk(question: StubQuestion, i: number): ChatCompletionChunk | Completion {
  const text = `${i === 0 ? "" : " "}w${i}`;
  const last = i === question.tokens - 1;
  const choice = {
    index: 0,
    finish_reason: last ? ("stop" as const) : null,
    logprobs: null,
    layers_used: [layersOf(question, i)],
  };
  return question.chat
    ? { ...head(question), object: "chat.completion.chunk", choices: [{ ...choice, delta: { content: text } }] }
    : { ...head(question), object: "text_completion", choices: [{ ...choice, text }] };
}

/** The chunk that carries the account. */
export function accountChunk(question: StubQuestion): unknown {
  const object = question.chat ? "chat.completion.chunk" : "text_completion";
  return { ...head(question), object, choices: [], ...account(question) };
}
