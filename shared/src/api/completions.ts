import { z } from "zod";
import { FathomRequest, FathomResponse } from "./fathom.ts";
import { UnsupportedInChat, UnsupportedInCompletion } from "./unsupported.ts";

/** Longest text accepted in one field, in UTF-16 units; the context limit is the real bound and is checked in tokens. */
const MAX_TEXT = 1_000_000;

const TextPart = z.object({ type: z.literal("text"), text: z.string().max(MAX_TEXT) });

/** Chat content: a string, or OpenAI's list of text parts (other part types are refused: the model reads text only). */
export const MessageContent = z.union([z.string().max(MAX_TEXT), z.array(TextPart).min(1)], {
  error: "must be a string or a list of text parts",
});

export const ChatMessage = z.object({
  role: z.enum(["system", "developer", "user", "assistant"]),
  content: MessageContent,
  name: z.string().max(256).optional(),
});
export type ChatMessage = z.infer<typeof ChatMessage>;

/** Joins a message's text parts. */
export function contentText(content: z.infer<typeof MessageContent>): string {
  return typeof content === "string" ? content : content.map((part) => part.text).join("");
}

/**
 * Fields shared by both endpoints, in OpenAI's spelling. Fields that Fathom does not serve are refused where they would
 * change the answer, and dropped where they would not (`store`, `metadata`, `service_tier`, …).
 */
const Sampling = {
  model: z.string().min(1).max(256),
  temperature: z.number().min(0).max(2).nullish(),
  top_p: z.number().gt(0).max(1).nullish(),
  seed: z
    .int()
    .min(-(2 ** 53) + 1)
    .max(2 ** 53 - 1)
    .nullish(),
  stop: z
    .union([z.string().min(1).max(256), z.array(z.string().min(1).max(256)).max(16)], {
      error: "must be a text of 1 to 256 characters, or a list of at most 16 of them",
    })
    .nullish(),
  stream: z.boolean().nullish(),
  stream_options: z.object({ include_usage: z.boolean().optional() }).nullish(),
  n: z.literal(1, { error: "must be 1: one choice per request" }).nullish(),
  user: z.string().max(256).optional(),
  fathom: FathomRequest.optional(),
};

const MaxTokens = z.int().min(1).max(1_000_000).nullish();

/** The name ending that asks for the exit policy `confidence`: see the edge's virtual models. */
const CONFIDENCE_NAME = /-confidence$/;

/** A threshold is of use to one exit policy only, which the dial or the model's name asks for. */
function hasUseForThreshold({ model, fathom }: { model: string; fathom?: FathomRequest | undefined }): boolean {
  if (fathom?.threshold === undefined || fathom.exit === "confidence") return true;
  return fathom.exit === undefined && CONFIDENCE_NAME.test(model);
}

const THRESHOLD_WITHOUT_USE = {
  error: 'goes with "exit": "confidence" only',
  path: ["fathom", "threshold"],
};

export const ChatCompletionRequest = z
  .object({
    ...Sampling,
    ...UnsupportedInChat,
    messages: z.array(ChatMessage).min(1, { error: "must hold at least one message" }).max(10_000),
    max_tokens: MaxTokens,
    max_completion_tokens: MaxTokens,
  })
  .refine(hasUseForThreshold, THRESHOLD_WITHOUT_USE);
export type ChatCompletionRequest = z.infer<typeof ChatCompletionRequest>;

export const CompletionRequest = z
  .object({
    ...Sampling,
    ...UnsupportedInCompletion,
    prompt: z.union(
      [
        z.string().min(1).max(MAX_TEXT),
        z
          .array(
            z
              .int()
              .min(0)
              .max(2 ** 31 - 1),
          )
          .min(1),
      ],
      {
        error: "must be a non-empty string or a non-empty list of token ids",
      },
    ),
    max_tokens: MaxTokens,
  })
  .refine(hasUseForThreshold, THRESHOLD_WITHOUT_USE);
export type CompletionRequest = z.infer<typeof CompletionRequest>;

export const FinishReason = z.enum(["stop", "length"]);
export type FinishReason = z.infer<typeof FinishReason>;

export const Usage = z.object({
  prompt_tokens: z.int().min(0),
  completion_tokens: z.int().min(0),
  total_tokens: z.int().min(0),
  /** Of the prompt's tokens, those whose K/V the service had already. */
  prompt_tokens_details: z.object({ cached_tokens: z.int().min(0) }).optional(),
});
export type Usage = z.infer<typeof Usage>;

const envelope = { id: z.string(), created: z.int(), model: z.string(), system_fingerprint: z.string().optional() };

export const ChatCompletion = z.object({
  ...envelope,
  object: z.literal("chat.completion"),
  choices: z.array(
    z.object({
      index: z.int(),
      message: z.object({ role: z.literal("assistant"), content: z.string(), refusal: z.null().optional() }),
      finish_reason: FinishReason,
      logprobs: z.null(),
    }),
  ),
  usage: Usage,
  fathom: FathomResponse,
});
export type ChatCompletion = z.infer<typeof ChatCompletion>;

/** One SSE event of a streamed chat. The last one before `[DONE]` has no choices and carries `fathom` (and usage if asked). */
export const ChatCompletionChunk = z.object({
  ...envelope,
  object: z.literal("chat.completion.chunk"),
  choices: z.array(
    z.object({
      index: z.int(),
      delta: z.object({ role: z.literal("assistant").optional(), content: z.string().optional() }),
      finish_reason: FinishReason.nullable(),
      logprobs: z.null(),
      /** Depth at which each token of this chunk was decided. */
      layers_used: z.array(z.int()).optional(),
    }),
  ),
  usage: Usage.nullish(),
  fathom: FathomResponse.optional(),
});
export type ChatCompletionChunk = z.infer<typeof ChatCompletionChunk>;

export const Completion = z.object({
  ...envelope,
  object: z.literal("text_completion"),
  choices: z.array(
    z.object({
      index: z.int(),
      text: z.string(),
      /** Generated token ids; only from a checkpoint without a tokenizer, where `text` is empty. */
      token_ids: z.array(z.int().min(0)).optional(),
      finish_reason: FinishReason.nullable(),
      logprobs: z.null(),
      layers_used: z.array(z.int()).optional(),
    }),
  ),
  usage: Usage.nullish(),
  fathom: FathomResponse.optional(),
});
export type Completion = z.infer<typeof Completion>;
