import { type FathomResponse, summarizeLayers } from "@fathom/shared";
import type { RequestRecord } from "../request-record.ts";

/** A request that was answered with four tokens, and what differs. */
export function record(index: number, changes: Partial<RequestRecord> = {}): RequestRecord {
  return {
    index,
    prompt: 0,
    depth: null,
    exit: null,
    outcome: "ok",
    status: 200,
    code: null,
    message: null,
    intended_at_ms: 100 * index,
    sent_at_ms: 100 * index,
    ended_at_ms: 100 * index + 400,
    ttft_ms: 100,
    tpot_ms: 100,
    e2e_ms: 400,
    itl_ms: [100, 100, 100],
    prompt_tokens: 10,
    output_tokens: 4,
    tokens_from: "usage",
    fathom: null,
    ...changes,
  };
}

/** A request that got no answer. */
export function lost(index: number, outcome: "refused" | "failed" | "cut", status: number | null, code: string) {
  const none = { ttft_ms: null, tpot_ms: null, e2e_ms: null, itl_ms: [], prompt_tokens: null };
  return record(index, { ...none, output_tokens: null, tokens_from: null, outcome, status, code, message: "no" });
}

/** What a Fathom service tells of an answer whose tokens were decided at these depths. */
export function fathomField(
  layersUsed: number[],
  queueMs: number,
  draft?: FathomResponse["layers"]["draft"],
): FathomResponse {
  const total = layersUsed.reduce((sum, layers) => sum + layers, 0);
  return {
    depth: Math.max(...layersUsed),
    exit: draft ? "speculative" : "fixed",
    reason: "requested",
    layers: { ...summarizeLayers(layersUsed, false), ...(draft ? { draft } : {}) },
    timing: {
      queue_ms: queueMs,
      prefill_ms: 1,
      time_to_first_token_ms: 1,
      decode_ms: 1,
      total_ms: 1,
      inter_token_ms_mean: 1,
      tokens_per_second: 1,
    },
    cost: { layer_tokens: total + 100, micro_usd: 2 },
  };
}
