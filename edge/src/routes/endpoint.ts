import { ChatCompletionRequest, CompletionRequest } from "@fathom/shared";
import type { z } from "zod";
import { chatPromptSize, completionPromptSize, type PromptSize } from "../policy/worst-case.ts";

export type GenerationRequest = ChatCompletionRequest | CompletionRequest;

/** The field in which a request says, or would say, how long its answer may be. */
export type MaxTokensField = "max_tokens" | "max_completion_tokens";

/** One of OpenAI's two ways to ask for text. */
export interface Endpoint<T extends GenerationRequest> {
  path: string;
  schema: z.ZodType<T>;
  promptSize(request: T): PromptSize;
  maxTokens(request: T): { field: MaxTokensField; value: number | undefined };
}

export const chatEndpoint: Endpoint<ChatCompletionRequest> = {
  path: "/v1/chat/completions",
  schema: ChatCompletionRequest,
  promptSize: chatPromptSize,
  maxTokens: (request) => {
    const field = request.max_completion_tokens == null ? "max_tokens" : "max_completion_tokens";
    return { field, value: request[field] ?? undefined };
  },
};

export const completionEndpoint: Endpoint<CompletionRequest> = {
  path: "/v1/completions",
  schema: CompletionRequest,
  promptSize: completionPromptSize,
  maxTokens: (request) => ({ field: "max_tokens", value: request.max_tokens ?? undefined }),
};
