import { ApiError, type ChatCompletion, type Completion } from "@fathom/shared";
import type { Engine } from "../engine/types.ts";
import { generateText, type TextEnd, type TextEvent, type TextPiece } from "../text/generate-text.ts";
import type { ServedModel } from "../text/served-model.ts";
import type { AnswerFormat, AnswerHead, Part, StreamChunk, WholeAnswer } from "./answer-format.ts";
import { toApiError } from "./errors.ts";
import type { ResolvedRequest } from "./resolve-request.ts";
import type { LiveRequest } from "./service.ts";
import { SSE_DONE, sseEvent, sseStream } from "./sse.ts";

/** How an answer ended, for the log. */
export type Outcome = Pick<TextEnd, "finishReason" | "usage" | "fathom"> | { error: unknown };

export interface AnswerOptions {
  model: ServedModel;
  /** The model's engine, or what stands before it. */
  engine: Pick<Engine, "generate">;
  request: ResolvedRequest;
  format: AnswerFormat;
  live: LiveRequest;
  /** Called once, when nothing more will be generated. */
  onEnd: (outcome: Outcome) => void;
}

type Events = AsyncGenerator<TextEvent, void, void>;

/**
 * Runs a request and returns the whole answer, or its stream of server-sent events once the first token is there: until
 * then a failure still has a status of its own.
 * @throws ApiError when the request fails before anything was sent.
 */
export async function answer(
  options: AnswerOptions,
): Promise<ChatCompletion | Completion | ReadableStream<Uint8Array>> {
  const { model, engine, request, format, live, onEnd } = options;
  const head: AnswerHead = {
    id: `${format.idPrefix}${request.text.id}`,
    created: Math.floor(Date.now() / 1000),
    model: model.manifest.name,
  };
  const part = ({ text, layers, tokens }: Omit<TextPiece, "type">): Part => ({
    text,
    layers,
    ...(model.text ? {} : { tokens }),
  });
  const events = generateText(engine, model.text, request.text, live.signal);
  const end = (outcome: Outcome): void => {
    live.end();
    onEnd(outcome);
  };
  try {
    if (!request.stream) {
      const whole = await collect(events, part);
      end(whole);
      return format.whole(head, whole);
    }
    const first = await events.next();
    const chunks = toChunks(prepend(first, events), { head, format, part, includeUsage: request.includeUsage, end });
    return sseStream(toBytes(chunks, end), { signal: live.signal, onDisconnect: live.abandon });
  } catch (error) {
    end({ error });
    throw error;
  }
}

async function collect(events: Events, part: (piece: Omit<TextPiece, "type">) => Part): Promise<WholeAnswer> {
  let text = "";
  const tokens: number[] = [];
  const layers: number[] = [];
  for await (const event of events) {
    text += event.text;
    tokens.push(...event.tokens);
    layers.push(...event.layers);
    if (event.type === "end") {
      const { finishReason, usage, fathom } = event;
      return { ...part({ text, tokens, layers }), finishReason, usage, fathom };
    }
  }
  throw endedEarly();
}

async function* prepend(first: IteratorResult<TextEvent, void>, rest: Events): Events {
  if (first.done) return;
  yield first.value;
  yield* rest;
}

interface ChunkOptions {
  head: AnswerHead;
  format: AnswerFormat;
  part: (piece: Omit<TextPiece, "type">) => Part;
  includeUsage: boolean;
  end: (outcome: Outcome) => void;
}

async function* toChunks(events: Events, options: ChunkOptions): AsyncGenerator<StreamChunk, void, void> {
  const { head, format, part, includeUsage, end } = options;
  // OpenAI: with include_usage every chunk has the field, null until the last.
  const withUsage = (chunk: StreamChunk): StreamChunk => (includeUsage ? { ...chunk, usage: null } : chunk);
  const opening = format.opening(head);
  if (opening) yield withUsage(opening);
  for await (const event of events) {
    if (event.type === "piece") {
      yield withUsage(format.piece(head, part(event)));
      continue;
    }
    yield withUsage(format.finish(head, part(event), event.finishReason));
    yield format.account(head, event.fathom, includeUsage ? event.usage : undefined);
    end(event);
    return;
  }
  throw endedEarly();
}

/** A failure in mid-stream becomes an event of its own; the missing `[DONE]` then tells that the answer is not whole. */
async function* toBytes(
  chunks: AsyncIterable<StreamChunk>,
  end: (outcome: Outcome) => void,
): AsyncGenerator<Uint8Array, void, void> {
  try {
    for await (const chunk of chunks) yield sseEvent(chunk);
    yield SSE_DONE;
  } catch (error) {
    end({ error });
    yield sseEvent(toApiError(error).toBody());
  }
}

function endedEarly(): ApiError {
  return new ApiError("internal_error", "The answer ended without an account.");
}
