import { type ChatCompletionRequest, type CompletionRequest, contentText, priceMicroUsd } from "@fathom/shared";
import type { Offer } from "../ledger/offer.ts";
import type { DepthOffer } from "./depth-policy.ts";

/** Template tokens around one chat message, and once per chat (a template may add a system message of its own). */
const TOKENS_AROUND_MESSAGE = 16;
const TOKENS_AROUND_CHAT = 256;

/** What is usual: for an estimate, where the service did not get to say the count. */
const USUAL_BYTES_PER_TOKEN = 4;
const USUAL_TOKENS_AROUND_MESSAGE = 4;

const encoder = new TextEncoder();

/** The size of a prompt in tokens, without a tokenizer. */
export interface PromptSize {
  /** No prompt of these texts has more: a byte-level tokenizer makes at most one token of a byte. */
  atMost: number;
  /** What is charged for the prompt of an answer that was cut off before its account. */
  about: number;
}

/** Size of a chat's prompt. */
export function chatPromptSize({ messages }: ChatCompletionRequest): PromptSize {
  let bytes = 0;
  for (const { role, content, name } of messages) {
    bytes += utf8Bytes(role) + utf8Bytes(contentText(content)) + utf8Bytes(name ?? "");
  }
  return {
    atMost: bytes + messages.length * TOKENS_AROUND_MESSAGE + TOKENS_AROUND_CHAT,
    about: Math.ceil(bytes / USUAL_BYTES_PER_TOKEN) + messages.length * USUAL_TOKENS_AROUND_MESSAGE,
  };
}

/** Size of a completion's prompt. */
export function completionPromptSize({ prompt }: CompletionRequest): PromptSize {
  if (typeof prompt !== "string") return { atMost: prompt.length, about: prompt.length };
  const bytes = utf8Bytes(prompt);
  return { atMost: bytes + TOKENS_AROUND_MESSAGE, about: Math.ceil(bytes / USUAL_BYTES_PER_TOKEN) };
}

/** What a request may cost at most. */
export interface WorstCase {
  promptTokens: number;
  maxTokens: number;
  contextLength: number;
  /** Nano-USD per layer-token. */
  price: number;
  /** Whether the answer may be shortened to fit the budget. */
  mayClip?: boolean;
}

/**
 * Adds to each depth the micro-USD that the request can cost there. No exit policy costs more than `fixed`: with
 * `confidence` a token uses at most `depth` layers, with `speculative` exactly `depth`, and drafts are not charged.
 */
export function priceOffers(offers: readonly DepthOffer[], worst: WorstCase): Offer[] {
  const tokens = Math.min(worst.promptTokens + worst.maxTokens, worst.contextLength);
  return offers.map((offer) => ({
    ...offer,
    cost: priceMicroUsd(tokens * offer.depth, worst.price),
    ...(worst.mayClip && {
      clip: { promptTokens: worst.promptTokens, nanoUsdPerToken: offer.depth * worst.price },
    }),
  }));
}

function utf8Bytes(text: string): number {
  return encoder.encode(text).length;
}
