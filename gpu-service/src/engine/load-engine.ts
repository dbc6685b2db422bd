import { totalmem } from "node:os";
import { type ExitSet, fullDepth } from "@fathom/shared";
import { openCheckpoint } from "../checkpoint/open-checkpoint.ts";
import { defaultThreads } from "./executor.ts";
import type { WorkerOptions } from "./protocol.ts";
import type { Engine, ExecutionProvider } from "./types.ts";
import { WorkerEngine } from "./worker-engine.ts";

const DEFAULT_STALL_MS = 30_000;

/** A quarter of the machine's memory, at most 2 GiB, in bytes. */
export function defaultKvMemory(): number {
  return Math.min(Math.floor(totalmem() / 4), 2 ** 31);
}

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
  /** Bytes of K/V at most, those of remembered prefixes included. Default a quarter of the memory, at most 2 GiB. */
  kvMemory?: number;
  /** A request whose answer nobody reads is dropped after this long, milliseconds. */
  stallMs?: number;
  /** Check every file's SHA-256 before loading. */
  verify?: boolean;
}

/**
 * Opens a nested checkpoint and starts its engine in a worker thread.
 * @throws CheckpointError when the checkpoint is missing, damaged or not LLaMA; RangeError for exits it does not have and for
 *   too little K/V memory.
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
    kvBudget: options.kvMemory ?? defaultKvMemory(),
  };
  return WorkerEngine.start(workerOptions, {
    maxWaiting: options.maxWaiting ?? 64,
    stallMs: options.stallMs ?? DEFAULT_STALL_MS,
  });
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
