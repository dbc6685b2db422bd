import type { Architecture, ExitSet } from "@fathom/shared";

/** Where the graphs run. */
export type ExecutionProvider = "cpu" | "webgpu" | "cuda";
export const EXECUTION_PROVIDERS = ["cpu", "webgpu", "cuda"] as const satisfies readonly ExecutionProvider[];

/** How the next token is drawn from the logits. `temperature` 0 is greedy; the seed makes a sampled run repeatable. */
export interface SamplingParams {
  temperature: number;
  /** Nucleus: the smallest set of tokens whose probability reaches this share, 0 < topP ≤ 1. */
  topP: number;
  seed: number;
}

/** How each token's depth is decided; see ExitPolicyName. */
export type ExitPolicy =
  /** Every token at the request's depth. */
  | { type: "fixed" }
  /** A token stops at the first exit whose top probability reaches the exit's threshold; exits without one are passed. */
  | { type: "confidence"; thresholds: Readonly<Record<number, number>> }
  /**
   * Drafts at `draftDepth`, verifies at the request's depth: the output is that of plain decoding there. Without a
   * `draftLength` drafts are as long as pays.
   */
  | { type: "speculative"; draftDepth: number; draftLength?: number };

/** Interactive requests go before batch ones; among equals a weight of 2 gets twice the share of 1. */
export interface EnginePriority {
  class: "interactive" | "batch";
  weight: number;
}

export interface EngineRequest {
  id: string;
  /** Prompt token ids, at least one. */
  prompt: readonly number[];
  /**
   * Target depth: the exit at which a token is decided at the latest; a member of the exit set. The prompt runs to it, so the
   * first token is always decided there.
   */
  depth: number;
  /** Confidence only: the shallowest exit at which a token may be decided. Default the shallowest served. */
  minDepth?: number;
  /** Default fixed. */
  policy?: ExitPolicy;
  sampling: SamplingParams;
  /** Generated tokens at most, ≥ 1; prompt + maxTokens must fit `EngineInfo.contextLength`. */
  maxTokens: number;
  /** Token ids that end the answer (they are not emitted). */
  stopTokenIds: readonly number[];
  /** K/V of a prompt's beginning is shared with requests of the same salt only. Default: with those that have none. */
  cacheSalt?: string;
  /** Default interactive, weight 1. */
  priority?: EnginePriority;
  /** Milliseconds from the start of `generate` after which the answer ends with `timeout`. Default none. */
  timeoutMs?: number;
}

/** Engine-side timing, milliseconds. The decode time spans from the first token to the last. */
export interface EngineTiming {
  queueMs: number;
  prefillMs: number;
  timeToFirstTokenMs: number;
  decodeMs: number;
  totalMs: number;
}

/** `timeout`: the request's own time was up; what was decided until then has been emitted. */
export type EngineFinishReason = "stop" | "length" | "cancelled" | "timeout";

/** Why a token was decided where it was: its depth was fixed, it was confident, it came to the target depth, or was verified. */
export type ExitReason = "fixed" | "confident" | "target" | "verified";

/** What an answer took, beyond its tokens. */
export interface EngineAccount {
  /** Depth at which the prompt was prefilled. */
  promptDepth: number;
  /** Prompt tokens whose K/V came from the prefix cache. */
  cachedTokens: number;
  /** Times that the request lost its K/V to others and was prefilled again. */
  preemptions: number;
  /** Speculative only: tokens proposed at the draft depth and those of them that the target depth accepted. */
  draft?: { depth: number; proposed: number; accepted: number };
}

export type EngineEvent =
  /** One token was decided at depth `layers`; `confidence` is its exit's top probability, where that was computed. */
  | { type: "token"; token: number; layers: number; confidence?: number }
  /** Terminal: nothing follows. */
  | { type: "finished"; reason: EngineFinishReason; timing: EngineTiming; account: EngineAccount };

export interface EngineLoad {
  /** Requests that hold K/V and are being decoded. */
  running: number;
  /** Requests waiting for admission. */
  waiting: number;
}

/** Counters since the engine started, and gauges of now. */
export interface EngineStats {
  running: number;
  waiting: number;
  /** Running requests whose reader lags behind. */
  paused: number;
  /** Bytes of K/V held, the prefix cache's included, and the most that may be. */
  kvBytes: number;
  kvBudgetBytes: number;
  /** Those of prefixes that no running request holds. */
  prefixCacheBytes: number;
  /** Tokens whose K/V above their exit is not computed yet. */
  pendingRows: number;
  /** Counters. */
  steps: number;
  promptTokens: number;
  generatedTokens: number;
  /** Prompt tokens looked up in the prefix cache, and found there. */
  prefixCacheQueries: number;
  prefixCacheHits: number;
  preemptions: number;
  /** Generated tokens by depth and reason. */
  exits: { depth: number; reason: ExitReason; tokens: number }[];
  draftProposed: number;
  draftAccepted: number;
}

/** What an exit says about the tokens that follow given positions. */
export interface ExitScores {
  depth: number;
  /** Most probable next token of each position. */
  predicted: Int32Array;
  /** Its probability. */
  confidence: Float32Array;
  /** Cross-entropy of the token that follows each position, nats; NaN behind the last one. Only where asked for. */
  loss?: Float32Array;
}

export interface EngineInfo {
  architecture: Architecture;
  exits: ExitSet;
  /** Tokens of prompt and answer together: what the model was made for, or what the K/V budget holds if that is less. */
  contextLength: number;
  provider: ExecutionProvider;
  threads: number;
}

/**
 * The engine as the rest of the service sees it: token ids in, token ids out, at any exit. It knows no text and no HTTP.
 */
export interface Engine {
  readonly info: EngineInfo;
  /** Resolves with the reason when the engine dies by itself; it serves nothing after that. */
  readonly died: Promise<Error>;
  /**
   * Starts a request. The iterable yields tokens as they are decided and ends after `finished`; leaving the loop early or
   * aborting the signal cancels the request and frees its row.
   * A consumer that lags behind pauses the request, without holding up others, and loses it after `stallMs`.
   * @throws ApiError `invalid_depth`, `context_length_exceeded`, `overloaded`, `draining`.
   */
  generate(request: EngineRequest, signal?: AbortSignal): AsyncIterable<EngineEvent>;
  /** Logits of the prompt's last position at each of the given exits, float32 [vocab] each. */
  probe(prompt: readonly number[], depths: readonly number[]): Promise<{ depth: number; logits: Float32Array }[]>;
  /**
   * What every served exit predicts after each of the positions `from` to the last, all of them given (teacher forcing).
   * @param withLoss also how probable the tokens that follow are; takes longer
   * @throws ApiError as `generate` does for the prompt
   */
  score(tokens: readonly number[], from: number, withLoss?: boolean): Promise<ExitScores[]>;
  load(): EngineLoad;
  /** At most a quarter of a second old. */
  stats(): EngineStats;
  /** Ends the worker thread; running requests finish with `cancelled`. */
  close(): Promise<void>;
}
