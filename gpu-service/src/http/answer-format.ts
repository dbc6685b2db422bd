import type {
  ChatCompletion,
  ChatCompletionChunk,
  Completion,
  FathomResponse,
  FinishReason,
  Usage,
} from "@fathom/shared";
import type { TextEnd } from "../text/generate-text.ts";

/** What all chunks of one answer have in common. */
export interface AnswerHead {
  id: string;
  /** Seconds since the epoch. */
  created: number;
  model: string;
}

/** Some tokens of an answer and the text that became certain with them. */
export interface Part {
  text: string;
  layers: number[];
  /** Token ids, for a checkpoint that has no tokenizer to make text of them. */
  tokens?: number[];
}

/** A whole answer and its account. */
export type WholeAnswer = Part & Pick<TextEnd, "finishReason" | "usage" | "fathom">;

/** How one endpoint puts an answer on the wire. */
export interface AnswerFormat {
  idPrefix: string;
  whole(head: AnswerHead, answer: WholeAnswer): ChatCompletion | Completion;
  /** Sent before the first text. */
  opening(head: AnswerHead): StreamChunk | undefined;
  piece(head: AnswerHead, part: Part): StreamChunk;
  /** The last chunk with a choice. */
  finish(head: AnswerHead, part: Part, reason: FinishReason): StreamChunk;
  /** The last chunk before `[DONE]`; it has no choices. */
  account(head: AnswerHead, fathom: FathomResponse, usage: Usage | undefined): StreamChunk;
}

export type StreamChunk = ChatCompletionChunk | Completion;

type ChatDelta = ChatCompletionChunk["choices"][number]["delta"];

function chatChunk(head: AnswerHead, delta: ChatDelta, layers?: number[], reason?: FinishReason): ChatCompletionChunk {
  return {
    ...head,
    object: "chat.completion.chunk",
    choices: [
      {
        index: 0,
        delta,
        finish_reason: reason ?? null,
        logprobs: null,
        ...(layers === undefined ? {} : { layers_used: layers }),
      },
    ],
  };
}

/** `/v1/chat/completions` */
export const chatFormat: AnswerFormat = {
  idPrefix: "chatcmpl-",
  whole: (head, { text, finishReason, usage, fathom }) => ({
    ...head,
    object: "chat.completion",
    choices: [
      {
        index: 0,
        message: { role: "assistant", content: text, refusal: null },
        finish_reason: finishReason,
        logprobs: null,
      },
    ],
    usage,
    fathom,
  }),
  opening: (head) => chatChunk(head, { role: "assistant", content: "" }),
  piece: (head, { text, layers }) => chatChunk(head, { content: text }, layers),
  finish: (head, { text, layers }, reason) => chatChunk(head, text === "" ? {} : { content: text }, layers, reason),
  account: (head, fathom, usage) => ({
    ...head,
    object: "chat.completion.chunk",
    choices: [],
    ...(usage ? { usage } : {}),
    fathom,
  }),
};

function completionChunk(head: AnswerHead, { text, tokens, layers }: Part, reason: FinishReason | null): Completion {
  return {
    ...head,
    object: "text_completion",
    choices: [
      {
        index: 0,
        text,
        ...(tokens ? { token_ids: tokens } : {}),
        finish_reason: reason,
        logprobs: null,
        layers_used: layers,
      },
    ],
  };
}

/** `/v1/completions` */
export const completionFormat: AnswerFormat = {
  idPrefix: "cmpl-",
  whole: (head, answer) => ({
    ...completionChunk(head, answer, answer.finishReason),
    usage: answer.usage,
    fathom: answer.fathom,
  }),
  opening: () => undefined,
  piece: (head, part) => completionChunk(head, part, null),
  finish: (head, part, reason) => completionChunk(head, part, reason),
  account: (head, fathom, usage) => ({
    ...head,
    object: "text_completion",
    choices: [],
    ...(usage ? { usage } : {}),
    fathom,
  }),
};
