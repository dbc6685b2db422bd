import { randomInt, randomUUID } from "node:crypto";
import {
  ApiError,
  ChatCompletionRequest,
  CompletionRequest,
  type DepthReason,
  type FathomRequest,
  fromZodError,
} from "@fathom/shared";
import type { z } from "zod";
import type { TextRequest } from "../text/generate-text.ts";
import type { ServedModel } from "../text/served-model.ts";
import type { Caller } from "./caller.ts";
import { chooseDepth } from "./choose-depth.ts";
import { type ChosenPolicy, choosePolicy } from "./choose-policy.ts";
import { answersTo } from "./model-name.ts";

/** Longest answer when the client names no limit and the context leaves more room. */
const DEFAULT_MAX_TOKENS = 2048;

/** A request that can run, and how its answer is to be sent. */
export interface ResolvedRequest {
  text: TextRequest;
  stream: boolean;
  includeUsage: boolean;
}

/** The target depth and how the layers of each token are decided. */
interface Dial extends ChosenPolicy {
  depth: number;
}

/** A prompt in tokens, and the field that it came from. */
interface Prompt {
  tokens: readonly number[];
  param: "messages" | "prompt";
  continues: boolean;
}

/**
 * Checks the body of a chat request and turns it into one for the engine.
 * @throws ApiError that names the offending field.
 */
export async function resolveChat(body: unknown, model: ServedModel, caller: Caller): Promise<ResolvedRequest> {
  const request = parse(ChatCompletionRequest, body);
  const dial = checkModelAndDial(request, model, caller);
  if (!model.text) throw noTokenizer("messages", "send token ids as 'prompt' to /v1/completions");
  const prompt: Prompt = { tokens: await model.text.tokens(request.messages), param: "messages", continues: false };
  const field = request.max_completion_tokens == null ? "max_tokens" : "max_completion_tokens";
  return resolve(request, model, caller, dial, prompt, field, request[field] ?? undefined);
}

/**
 * Checks the body of a completion request and turns it into one for the engine.
 * @throws ApiError that names the offending field.
 */
export async function resolveCompletion(body: unknown, model: ServedModel, caller: Caller): Promise<ResolvedRequest> {
  const request = parse(CompletionRequest, body);
  const dial = checkModelAndDial(request, model, caller);
  const prompt: Prompt = { tokens: await promptTokens(request.prompt, model), param: "prompt", continues: true };
  return resolve(request, model, caller, dial, prompt, "max_tokens", request.max_tokens ?? undefined);
}

type CommonRequest = Omit<CompletionRequest, "prompt" | "max_tokens" | "echo">;

function parse<T>(schema: z.ZodType<T>, body: unknown): T {
  const result = schema.safeParse(body);
  if (!result.success) throw fromZodError(result.error);
  return result.data;
}

function checkModelAndDial(request: CommonRequest, model: ServedModel, caller: Caller): Dial {
  if (!answersTo(model, request.model)) {
    throw new ApiError(
      "model_not_found",
      `'model': there is no model '${request.model}'; this service has '${model.manifest.name}'`,
      { param: "model" },
    );
  }
  const { exits } = model.engine.info;
  const depth = chooseDepth(exits, request.fathom, caller.maxDepth);
  return { depth, ...choosePolicy(exits, request.fathom, depth, model.manifest) };
}

async function promptTokens(prompt: CompletionRequest["prompt"], model: ServedModel): Promise<number[]> {
  if (typeof prompt === "string") {
    if (!model.text) throw noTokenizer("prompt", "send token ids");
    return model.text.tokens(prompt);
  }
  const size = model.engine.info.architecture.vocab_size;
  const alien = prompt.findIndex((token) => token >= size);
  if (alien >= 0) {
    const param = `prompt.${alien}`;
    throw new ApiError("invalid_request", `'${param}': token ${prompt[alien]} is not in the vocabulary of ${size}`, {
      param,
    });
  }
  return prompt;
}

function resolve(
  request: CommonRequest,
  model: ServedModel,
  caller: Caller,
  dial: Dial,
  prompt: Prompt,
  maxTokensField: string,
  maxTokens: number | undefined,
): ResolvedRequest {
  const stop = [request.stop ?? []].flat();
  if (stop.length > 0 && !model.text) throw noTokenizer("stop", "end the answer with 'max_tokens'");
  return {
    text: {
      id: randomUUID(),
      prompt: prompt.tokens,
      ...dial,
      priority: caller.priority,
      ...(caller.cacheSalt === undefined ? {} : { cacheSalt: caller.cacheSalt }),
      sampling: {
        temperature: request.temperature ?? 1,
        topP: request.top_p ?? 1,
        seed: request.seed ?? randomInt(2 ** 32),
      },
      maxTokens: fitContext(model, prompt, maxTokensField, maxTokens),
      stopTokenIds: model.manifest.tokenizer.eos_token_ids,
      stop,
      continues: prompt.continues,
      reason: caller.reason ?? directReason(request.fathom),
      price: caller.price,
      perTokenLayers: request.fathom?.per_token_layers ?? false,
    },
    stream: request.stream ?? false,
    includeUsage: request.stream_options?.include_usage ?? false,
  };
}

/** Without an edge in between, a depth is either asked for or the deepest that the caller is entitled to. */
function directReason(wish: FathomRequest | undefined): DepthReason {
  return typeof wish?.depth === "number" ? "requested" : "plan";
}

function fitContext(model: ServedModel, prompt: Prompt, field: string, maxTokens: number | undefined): number {
  const limit = model.engine.info.contextLength;
  const { length } = prompt.tokens;
  if (length === 0) {
    throw new ApiError("invalid_request", `'${prompt.param}': holds no token`, { param: prompt.param });
  }
  const room = limit - length;
  if (room < 1) {
    throw new ApiError(
      "context_length_exceeded",
      `'${prompt.param}': has ${length} tokens; the context holds ${limit}, one of them for the answer`,
      { param: prompt.param },
    );
  }
  if (maxTokens !== undefined && maxTokens > room) {
    throw new ApiError(
      "context_length_exceeded",
      `'${field}': ${maxTokens} tokens do not fit: the context holds ${limit} and the prompt has ${length}`,
      { param: field },
    );
  }
  return maxTokens ?? Math.min(room, DEFAULT_MAX_TOKENS);
}

function noTokenizer(param: string, instead: string): ApiError {
  return new ApiError("invalid_request", `'${param}': this checkpoint has no tokenizer; ${instead}`, { param });
}
