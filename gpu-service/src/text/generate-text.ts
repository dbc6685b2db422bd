import {
  ApiError,
  type DepthReason,
  type FathomResponse,
  type FathomTiming,
  type FinishReason,
  layerTokens,
  priceMicroUsd,
  summarizeLayers,
  type Usage,
} from "@fathom/shared";
import type { Engine, EngineAccount, EngineRequest, EngineTiming } from "../engine/types.ts";
import { StopMatcher } from "./stop-matcher.ts";
import type { TextModel } from "./text-model.ts";

/** A request whose prompt is tokenised and whose depth is decided. Its `id` is unique among the engine's live requests. */
export interface TextRequest extends EngineRequest {
  /** Texts that end the answer; they are cut. */
  stop: readonly string[];
  /** The answer continues the prompt's text, rather than beginning a message of its own. */
  continues: boolean;
  /** Why the request runs at its depth. */
  reason: DepthReason;
  /** Nano-USD per layer-token. */
  price: number;
  perTokenLayers: boolean;
}

/** Tokens of an answer with the text that became certain with them. Text may lag behind its tokens, never run ahead. */
export interface TextPiece {
  type: "piece";
  text: string;
  tokens: number[];
  /** Depth at which each of the tokens was decided. */
  layers: number[];
}

/** Terminal: the tokens and the text that were still held back, and the account of the whole answer. */
export interface TextEnd extends Omit<TextPiece, "type"> {
  type: "end";
  finishReason: FinishReason;
  usage: Usage;
  fathom: FathomResponse;
}

export type TextEvent = TextPiece | TextEnd;

/**
 * Runs a request and yields its answer as text. Without a text model the pieces carry tokens only.
 * @throws ApiError what the engine throws; when the answer is cut short, the signal's reason, `cancelled` or `timeout`.
 */
export async function* generateText(
  engine: Pick<Engine, "generate">,
  model: TextModel | undefined,
  request: TextRequest,
  signal?: AbortSignal,
): AsyncGenerator<TextEvent, void, void> {
  const { stop, continues, reason: _reason, price: _price, perTokenLayers: _perToken, ...engineRequest } = request;
  const stopped = new AbortController();
  const detokenizer = model?.detokenizer({ continues });
  const matcher = new StopMatcher(stop);
  const layersUsed: number[] = [];
  let pending: { tokens: number[]; layers: number[] } = { tokens: [], layers: [] };
  let decoded = 0;

  const events = engine.generate(engineRequest, signal ? AbortSignal.any([signal, stopped.signal]) : stopped.signal);
  for await (const event of events) {
    if (event.type === "token") {
      decoded++;
      // The engine may have run ahead of the stop string: those tokens are not part of the answer.
      if (stopped.signal.aborted) continue;
      layersUsed.push(event.layers);
      pending.tokens.push(event.token);
      pending.layers.push(event.layers);
      const match = matcher.push(detokenizer?.push(event.token) ?? "");
      if (match.stopped) stopped.abort();
      if (match.text === "" && detokenizer) continue;
      const piece = pending;
      pending = { tokens: [], layers: [] };
      yield { type: "piece", text: match.text, ...piece };
      continue;
    }
    const cut = stopped.signal.aborted;
    if (event.reason === "cancelled" && !cut) throw cancellation(signal);
    if (event.reason === "timeout" && !cut) throw timeout(request);
    const rest = cut ? { text: "", stopped: true } : matcher.push(detokenizer?.end() ?? "");
    yield {
      type: "end",
      text: rest.stopped ? rest.text : rest.text + matcher.end(),
      ...pending,
      finishReason: rest.stopped || event.reason !== "length" ? "stop" : "length",
      usage: usageOf(request.prompt.length, layersUsed.length, event.account),
      fathom: fathomOf(request, layersUsed, event.account, timingOf(event.timing, decoded)),
    };
    return;
  }
  throw new ApiError("internal_error", "The engine ended the answer without saying why.");
}

/** Whoever aborts may say why. */
function cancellation(signal: AbortSignal | undefined): ApiError {
  const reason: unknown = signal?.reason;
  return reason instanceof ApiError ? reason : new ApiError("cancelled", "The request was cancelled.");
}

/** A part of an answer that passed for the whole would mislead: OpenAI's clients know no finish reason for it. */
function timeout({ timeoutMs = 0 }: TextRequest): ApiError {
  return new ApiError("timeout", `The answer was not complete after ${timeoutMs} ms and was cut off.`);
}

function usageOf(promptTokens: number, completionTokens: number, account: EngineAccount): Usage {
  return {
    prompt_tokens: promptTokens,
    completion_tokens: completionTokens,
    total_tokens: promptTokens + completionTokens,
    prompt_tokens_details: { cached_tokens: account.cachedTokens },
  };
}

/** Tokens that were found in the prefix cache cost as if they had been prefilled, so that a price does not depend on others. */
function fathomOf(
  request: TextRequest,
  layersUsed: readonly number[],
  { promptDepth, draft }: EngineAccount,
  timing: FathomTiming,
): FathomResponse {
  const layers = summarizeLayers(layersUsed, request.perTokenLayers);
  const tokens = layerTokens(request.prompt.length, promptDepth, layers.total);
  return {
    depth: request.depth,
    exit: request.policy?.type ?? "fixed",
    reason: request.reason,
    layers: draft ? { ...layers, draft } : layers,
    timing,
    cost: { layer_tokens: tokens, micro_usd: priceMicroUsd(tokens, request.price) },
  };
}

/** Engine timing on the wire. The rate counts the steps between the first token and the last; one token has none. */
function timingOf(timing: EngineTiming, decoded: number): FathomTiming {
  const steps = Math.max(0, decoded - 1);
  const decodeMs = rounded(timing.decodeMs);
  return {
    queue_ms: rounded(timing.queueMs),
    prefill_ms: rounded(timing.prefillMs),
    time_to_first_token_ms: rounded(timing.timeToFirstTokenMs),
    decode_ms: decodeMs,
    total_ms: rounded(timing.totalMs),
    inter_token_ms_mean: steps === 0 ? 0 : rounded(decodeMs / steps),
    tokens_per_second: decodeMs === 0 ? 0 : rounded((steps / decodeMs) * 1000),
  };
}

/** Three decimals. Readings of two threads may lie a little before one another, so never below zero. */
function rounded(value: number): number {
  return Math.max(0, Math.round(value * 1000) / 1000);
}
