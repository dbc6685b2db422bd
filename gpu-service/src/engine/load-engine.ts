import { type ExitSet, fullDepth } from "@fathom/shared";
import { openCheckpoint } from "../checkpoint/open-checkpoint.ts";
import { defaultThreads } from "./executor.ts";
import type { WorkerOptions } from "./protocol.ts";
import type { Engine, ExecutionProvider } from "./types.ts";
import { WorkerEngine } from "./worker-engine.ts";

export interface LoadEngineOptions {
  provider?: ExecutionProvider;
  /** Intra-op threads of ONNX Runtime. */
  threads?: number;
  /** Serve only these exits; they must be in the checkpoint's set. The deepest one bounds the layers that are loaded. */
  exits?: readonly number[];
  /** Requests decoded at the same time; more wait. */
  maxConcurrent?: number;
  /** Requests that may wait; more are refused with `overloaded`. */
  maxWaiting?: number;
  /** Check every file's SHA-256 before loading. */
  verify?: boolean;
}

/**
 * Opens a nested checkpoint and starts its engine in a worker thread.
 * @throws CheckpointError when the checkpoint is missing, damaged or not LLaMA; RangeError for exits it does not have.
 */
export async function loadEngine(dir: string, options: LoadEngineOptions = {}): Promise<Engine> {
  const { manifest } = await openCheckpoint(dir, { verify: options.verify ?? true });
  const exits = chooseExits(manifest.exits, options.exits);
  const workerOptions: WorkerOptions = {
    dir,
    manifest,
    exits,
    provider: options.provider ?? "cpu",
    threads: options.threads ?? defaultThreads(),
    maxConcurrent: options.maxConcurrent ?? 16,
  };
  return WorkerEngine.start(workerOptions, options.maxWaiting ?? 64);
}

function chooseExits(available: ExitSet, wanted: readonly number[] | undefined): number[] {
  if (!wanted) return [...available];
  const unknown = wanted.find((depth) => !available.includes(depth));
  if (unknown !== undefined)
    throw new RangeError(`there is no exit at depth ${unknown}; exits are ${available.join(", ")}`);
  const chosen = available.filter((depth) => wanted.includes(depth));
  if (chosen.length === 0) throw new RangeError(`name at least one exit, for example ${fullDepth(available)}`);
  return chosen;
}
