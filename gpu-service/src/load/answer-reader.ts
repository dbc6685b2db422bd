import { FathomResponse } from "@fathom/shared";
import { createParser, type EventSourceParser } from "eventsource-parser";
import { z } from "zod";

const Count = z.int().min(0);

/** What an OpenAI-compatible stream may carry, as loosely as servers differ. */
const Chunk = z.object({
  choices: z
    .array(
      z.object({
        delta: z
          .object({
            content: z.string().nullish(),
            // Thinking models: DeepSeek's and vLLM's name, and OpenRouter's.
            reasoning_content: z.string().nullish(),
            reasoning: z.string().nullish(),
          })
          .nullish(),
        text: z.string().nullish(),
        token_ids: z.array(Count).nullish(),
        finish_reason: z.string().nullish(),
      }),
    )
    .default([]),
  usage: z.object({ prompt_tokens: Count, completion_tokens: Count }).nullish(),
  fathom: FathomResponse.optional(),
});
type Choice = z.infer<typeof Chunk>["choices"][number];

const ErrorEvent = z.object({
  error: z.object({
    message: z.string().default(""),
    type: z.string().nullish(),
    code: z.union([z.string(), z.number()]).nullish(),
  }),
});

/** Why an answer is no answer. */
export interface Failure {
  /** A short name to count by. */
  code: string;
  message: string;
}

/** What was seen of one answer. Times are those given to `feed`, milliseconds. */
export interface AnswerReading {
  /** When the first text came; undefined if none did. */
  firstAt: number | undefined;
  /** Gaps between neighbouring chunks with text: one fewer than there are such chunks. */
  gaps: number[];
  usage: { prompt_tokens: number; completion_tokens: number } | undefined;
  fathom: FathomResponse | undefined;
  failure: Failure | undefined;
}

/**
 * Reads one streamed answer as its bytes come. A chunk counts once it carries text (or token ids, where there is no
 * tokenizer): the opening chunk with the role alone is no token.
 */
export class AnswerReader {
  readonly #decoder = new TextDecoder();
  readonly #parser: EventSourceParser;
  readonly #reading: AnswerReading = {
    firstAt: undefined,
    gaps: [],
    usage: undefined,
    fathom: undefined,
    failure: undefined,
  };
  #lastAt = 0;
  #now = 0;
  #finished = false;

  constructor() {
    this.#parser = createParser({ onEvent: ({ data }) => this.#onEvent(data) });
  }

  /** Takes bytes that came at this time. */
  feed(bytes: Uint8Array, atMs: number): void {
    this.#now = atMs;
    this.#parser.feed(this.#decoder.decode(bytes, { stream: true }));
  }

  /** What was read, once the stream has ended in good order; a stream that told no end of its answer is a failure. */
  end(): AnswerReading {
    if (!this.#finished) this.#fail("incomplete_stream", "the stream ended before the answer did");
    return this.#reading;
  }

  #onEvent(data: string): void {
    if (data === "[DONE]") {
      this.#finished = true;
      return;
    }
    let json: unknown;
    try {
      json = JSON.parse(data);
    } catch {
      this.#fail("malformed_stream", `an event is not JSON: ${data.slice(0, 80)}`);
      return;
    }
    const error = readError(json);
    if (error) {
      this.#fail(error.code, error.message);
      return;
    }
    const chunk = Chunk.safeParse(json);
    if (!chunk.success) {
      const issue = chunk.error.issues[0];
      this.#fail("malformed_stream", `${issue?.path.join(".")}: ${issue?.message}`);
      return;
    }
    const { choices, usage, fathom } = chunk.data;
    if (choices.some(hasText)) this.#onText();
    // Some servers end without [DONE].
    if (choices.some(({ finish_reason }) => finish_reason)) this.#finished = true;
    if (usage) this.#reading.usage = usage;
    if (fathom) this.#reading.fathom = fathom;
  }

  #onText(): void {
    if (this.#reading.firstAt === undefined) this.#reading.firstAt = this.#now;
    else this.#reading.gaps.push(this.#now - this.#lastAt);
    this.#lastAt = this.#now;
  }

  #fail(code: string, message: string): void {
    this.#reading.failure ??= { code, message };
  }
}

function hasText({ delta, text, token_ids }: Choice): boolean {
  return Boolean(delta?.content || delta?.reasoning_content || delta?.reasoning || text || token_ids?.length);
}

/** The failure that a JSON body or event tells of, undefined if it is not an error. */
export function readError(json: unknown): Failure | undefined {
  const result = ErrorEvent.safeParse(json);
  if (!result.success) return undefined;
  const { message, type, code } = result.data.error;
  return { code: String(code ?? type ?? "error"), message };
}
