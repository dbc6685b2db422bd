import type { Manifest } from "@fathom/shared";
import type { EngineEvent, EngineInfo, EngineRequest, ExecutionProvider } from "./types.ts";

/** What the worker thread is started with. */
export interface WorkerOptions {
  dir: string;
  manifest: Manifest;
  exits: number[];
  provider: ExecutionProvider;
  threads: number;
  maxConcurrent: number;
}

/** Host → worker. `submittedAt` is `performance.timeOrigin + performance.now()`, the clock that both threads share. */
export type HostMessage =
  | { type: "generate"; request: EngineRequest; submittedAt: number }
  | { type: "cancel"; id: string }
  | { type: "probe"; id: string; prompt: readonly number[]; depths: readonly number[] }
  | { type: "close" };

/** Worker → host. */
export type WorkerMessage =
  | { type: "ready"; info: EngineInfo }
  | { type: "event"; id: string; event: EngineEvent }
  | { type: "probed"; id: string; exits: { depth: number; logits: Float32Array }[] }
  /** The request failed; the engine goes on. */
  | { type: "failed"; id: string; message: string };
