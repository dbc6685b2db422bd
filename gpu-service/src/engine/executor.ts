import { availableParallelism } from "node:os";
import type { Architecture } from "@fathom/shared";
import { DeviceExecutor } from "./device-executor.ts";
import { HostExecutor } from "./host-executor.ts";
import type { LayerRange } from "./kv-layout.ts";
import type { SessionOptions } from "./sessions.ts";

/** New positions `from` to `from + count` (exclusive) of a sequence. */
export interface ExecutorRow {
  id: string;
  from: number;
  count: number;
}

/** What an exit's head says about R rows. */
export interface HeadOutput {
  /** Most probable token of each row. */
  tokens: BigInt64Array;
  /** Its probability. */
  confidence: Float32Array;
  /** float32 [R, vocab], where asked for. */
  logits: Float32Array | undefined;
}

/**
 * Runs the segments and the heads of one checkpoint on ONNX Runtime and holds the K/V of its sequences. It knows tensors, but
 * neither requests nor text.
 */
export interface Executor {
  readonly architecture: Architecture;
  readonly segments: readonly LayerRange[];
  /** Whether K/V can be read and written, so that prompts can share prefixes. */
  readonly sharesPrefixes: boolean;
  /** Bytes of K/V allocated. */
  readonly kvBytes: number;
  /** Makes room for `rows` positions of a sequence that runs at `depth`; a new one is empty. */
  reserve(id: string, depth: number, rows: number): void;
  /** Frees a sequence's K/V. */
  release(id: string): void;
  /** Gives back K/V memory that the present sequences do not need. */
  compact(): void;
  /**
   * Runs new positions of one or more sequences through a segment and writes their K/V. Positions may be run again, after a
   * rollback: what was behind them counts no more.
   * @param input token ids of the rows (segment 0), or their residual stream float32 [R, H], in the order of `rows`
   * @returns the residual stream behind the segment, float32 [R, H]
   */
  run(segment: number, rows: readonly ExecutorRow[], input: BigInt64Array | Float32Array): Promise<Float32Array>;
  /** The deepest exit that goes through the same norm and head: rows of such exits may share a call of `head`. */
  headOf(depth: number): number;
  /** Norm and head of an exit over the residual stream of R rows, float32 [R, H]. */
  head(depth: number, hidden: Float32Array, withLogits: boolean): Promise<HeadOutput>;
  /** K/V of positions `from` to `to` in the first `depth` layers: float32 [depth, 2, kv_heads, to − from, head_dim]. */
  readKv(id: string, depth: number, from: number, to: number): Float32Array;
  /** Writes what `readKv` gave at positions `from` on, for a sequence of the same depth or less. */
  writeKv(id: string, depth: number, from: number, kv: Float32Array): void;
  /** Frees the native sessions. */
  close(): Promise<void>;
}

/** Threads worth using by default: decoding is bound by memory and synchronisation, not by cores. */
export function defaultThreads(): number {
  return Math.min(availableParallelism(), 8);
}

/** Builds the graphs and loads the sessions; the weights are mapped from the checkpoint's files. */
export function loadExecutor(options: SessionOptions): Promise<Executor> {
  return options.provider === "webgpu" ? DeviceExecutor.load(options) : HostExecutor.load(options);
}
