import type { Manifest } from "@fathom/shared";
import type { EngineEvent, EngineInfo, EngineRequest, EngineStats, ExecutionProvider, ExitScores } from "./types.ts";

/** What the worker thread is started with. */
export interface WorkerOptions {
  dir: string;
  manifest: Manifest;
  exits: number[];
  provider: ExecutionProvider;
  threads: number;
  maxConcurrent: number;
  /** Bytes of K/V at most, the prefix cache's included. */
  kvBudget: number;
}

/** Host → worker. `submittedAt` is `performance.timeOrigin + performance.now()`, the clock that both threads share. */
export type HostMessage =
  | { type: "generate"; request: EngineRequest; submittedAt: number }
  | { type: "cancel"; id: string }
  /** The reader lags behind, or has caught up. */
  | { type: "pause"; id: string; paused: boolean }
  | { type: "probe"; id: string; prompt: readonly number[]; depths: readonly number[] }
  | { type: "score"; id: string; tokens: readonly number[]; from: number; withLoss: boolean }
  | { type: "close" };

/** Worker → host. */
export type WorkerMessage =
  | { type: "ready"; info: EngineInfo; stats: EngineStats }
  /** What a step brought, in order. */
  | { type: "events"; events: { id: string; event: EngineEvent }[] }
  | { type: "stats"; stats: EngineStats }
  | { type: "probed"; id: string; exits: { depth: number; logits: Float32Array }[] }
  | { type: "scored"; id: string; exits: ExitScores[] }
  /** The request failed; the engine goes on. */
  | { type: "failed"; id: string; message: string };
