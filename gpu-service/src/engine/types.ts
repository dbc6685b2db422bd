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

export interface EngineRequest {
  id: string;
  /** Prompt token ids, at least one. */
  prompt: readonly number[];
  /** Exit at which every token is decided; a member of the exit set. */
  depth: number;
  sampling: SamplingParams;
  /** Generated tokens at most, ≥ 1; prompt + maxTokens must fit the context. */
  maxTokens: number;
  /** Token ids that end the answer (they are not emitted). */
  stopTokenIds: readonly number[];
}

/** Engine-side timing, milliseconds. The decode time spans from the first token to the last. */
export interface EngineTiming {
  queueMs: number;
  prefillMs: number;
  timeToFirstTokenMs: number;
  decodeMs: number;
  totalMs: number;
}

export type EngineFinishReason = "stop" | "length" | "cancelled";

export type EngineEvent =
  /** One token was decided at depth `layers`. */
  | { type: "token"; token: number; layers: number }
  /** Terminal: nothing follows. */
  | { type: "finished"; reason: EngineFinishReason; timing: EngineTiming };

export interface EngineLoad {
  /** Requests that hold K/V and are being decoded. */
  running: number;
  /** Requests waiting for admission. */
  waiting: number;
}

export interface EngineInfo {
  architecture: Architecture;
  exits: ExitSet;
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
   * @throws ApiError `invalid_depth`, `context_length_exceeded`, `overloaded`, `draining`.
   */
  generate(request: EngineRequest, signal?: AbortSignal): AsyncIterable<EngineEvent>;
  /** Logits of the prompt's last position at each of the given exits, float32 [vocab] each. */
  probe(prompt: readonly number[], depths: readonly number[]): Promise<{ depth: number; logits: Float32Array }[]>;
  load(): EngineLoad;
  /** Ends the worker thread; running requests finish with `cancelled`. */
  close(): Promise<void>;
}
