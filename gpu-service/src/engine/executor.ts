import { availableParallelism } from "node:os";
import { headTensors, type Manifest } from "@fathom/shared";
import ort from "onnxruntime-node";
import { buildHead, buildSegment, HEAD, SEGMENT } from "../graph/llama-segment.ts";
import { type RopeTable, ropeTable } from "../graph/rope.ts";
import { KvCache } from "./kv-cache.ts";
import type { ExecutionProvider } from "./types.ts";

export interface ExecutorOptions {
  dir: string;
  manifest: Manifest;
  /** Exits to serve; the segments between them are the units of execution. */
  exits: readonly number[];
  provider: ExecutionProvider;
  threads: number;
}

/** The residual stream at an exit, float32 [S, H]. */
export interface ExitStream {
  depth: number;
  hidden: Float32Array;
}

interface Segment {
  from: number;
  to: number;
  session: ort.InferenceSession;
}

/** Masked scores: large enough to vanish in the softmax, small enough not to overflow when added. */
const MASKED = -1e30;

/** Every session has an arena of its own; without this each would keep what its longest prompt took. */
const SHRINK_ARENA: ort.InferenceSession.RunOptions = { extra: { memory: { enable_memory_arena_shrinkage: "cpu:0" } } };

/** Threads worth using by default: decoding is bound by memory and synchronisation, not by cores. */
export function defaultThreads(): number {
  return Math.min(availableParallelism(), 8);
}

/** Runs the segments and the head of one checkpoint on ONNX Runtime. It knows tensors, but neither requests nor text. */
export class Executor {
  readonly #manifest: Manifest;
  readonly #segments: readonly Segment[];
  /** By depth; exits without a head of their own share one session. */
  readonly #heads: ReadonlyMap<number, ort.InferenceSession>;
  readonly #rope: RopeTable;
  readonly #noPast: Float32Array;
  readonly #zeros: Float32Array;

  private constructor(
    manifest: Manifest,
    segments: readonly Segment[],
    heads: ReadonlyMap<number, ort.InferenceSession>,
  ) {
    this.#manifest = manifest;
    this.#segments = segments;
    this.#heads = heads;
    const { context_length: contextLength, kv_heads: kvHeads, head_dim: headDim } = manifest.architecture;
    this.#rope = ropeTable(manifest.architecture, contextLength);
    this.#noPast = new Float32Array(kvHeads * headDim);
    this.#zeros = new Float32Array(contextLength + 1);
  }

  /** Builds the graphs and loads the sessions; the weights are mapped from the checkpoint's files. */
  static async load({ dir, manifest, exits, provider, threads }: ExecutorOptions): Promise<Executor> {
    const options = sessionOptions(dir, provider, threads);
    const segments: Segment[] = [];
    let from = 0;
    for (const to of exits) {
      segments.push({
        from,
        to,
        session: await ort.InferenceSession.create(buildSegment(manifest, from, to), options),
      });
      from = to;
    }
    const byTensor = new Map<string, ort.InferenceSession>();
    const heads = new Map<number, ort.InferenceSession>();
    for (const depth of exits) {
      const { head } = headTensors(manifest.architecture, depth, manifest.exit_heads);
      const session = byTensor.get(head) ?? (await ort.InferenceSession.create(buildHead(manifest, depth), options));
      byTensor.set(head, session);
      heads.set(depth, session);
    }
    return new Executor(manifest, segments, heads);
  }

  /** An empty cache for a sequence that runs at `depth`. */
  newCache(depth: number): KvCache {
    const a = this.#manifest.architecture;
    return new KvCache(depth, a.kv_heads * a.head_dim, a.context_length);
  }

  /**
   * Runs new positions through the first `depth` layers and commits their K/V.
   * @param tokens ids of the positions that follow the cache's
   * @returns the residual stream at each exit up to `depth`, deepest last
   */
  async forward(cache: KvCache, tokens: readonly number[], depth: number): Promise<ExitStream[]> {
    const a = this.#manifest.architecture;
    const count = tokens.length;
    const past = cache.length;
    cache.reserve(count);
    const { cos, sin, width } = this.#rope;
    const rows = [count, width];
    const shared = {
      [SEGMENT.cos]: new ort.Tensor("float32", cos.subarray(past * width, (past + count) * width), rows),
      [SEGMENT.sin]: new ort.Tensor("float32", sin.subarray(past * width, (past + count) * width), rows),
      [SEGMENT.mask]: this.#mask(past, count),
      [SEGMENT.split]: new ort.Tensor("int64", BigInt64Array.of(BigInt(Math.max(past, 1)), BigInt(count)), [2]),
    };
    const pastRows = Math.max(past, 1);
    const pastShape = [pastRows, a.kv_heads, a.head_dim];
    const exits: ExitStream[] = [];
    let hidden: ort.Tensor | undefined;
    for (const segment of this.#segments) {
      if (segment.to > depth) break;
      const feeds: Record<string, ort.Tensor> = { ...shared };
      if (hidden) feeds[SEGMENT.hidden] = hidden;
      else feeds[SEGMENT.tokens] = new ort.Tensor("int64", BigInt64Array.from(tokens, BigInt), [count]);
      for (let layer = segment.from; layer < segment.to; layer++) {
        feeds[SEGMENT.pastK(layer)] = new ort.Tensor(
          "float32",
          past === 0 ? this.#noPast : cache.keys(layer),
          pastShape,
        );
        feeds[SEGMENT.pastV(layer)] = new ort.Tensor(
          "float32",
          past === 0 ? this.#noPast : cache.values(layer),
          pastShape,
        );
      }
      const outputs = await segment.session.run(feeds, count > 1 ? SHRINK_ARENA : {});
      const rows = floats(outputs, SEGMENT.newKv);
      const size = rows.length / (2 * (segment.to - segment.from));
      for (let layer = segment.from, at = 0; layer < segment.to; layer++, at += 2 * size) {
        cache.write(layer, rows.subarray(at, at + size), rows.subarray(at + size, at + 2 * size));
      }
      hidden = outputs[SEGMENT.hiddenOut];
      exits.push({ depth: segment.to, hidden: floats(outputs, SEGMENT.hiddenOut) });
    }
    cache.commit(count);
    return exits;
  }

  /** Logits of the last position of a residual stream [S, H] at an exit, float32 [vocab]. */
  async logits({ hidden, depth }: ExitStream): Promise<Float32Array> {
    const head = this.#heads.get(depth);
    if (!head) throw new RangeError(`depth ${depth} is not served`);
    const size = this.#manifest.architecture.hidden_size;
    const last = new ort.Tensor("float32", hidden.subarray(hidden.length - size), [1, 1, size]);
    return floats(await head.run({ [HEAD.hidden]: last }), HEAD.logits);
  }

  /** Frees the native sessions. */
  async close(): Promise<void> {
    for (const { session } of this.#segments) await session.release();
    await Promise.all([...new Set(this.#heads.values())].map((head) => head.release()));
  }

  /**
   * What `count` new positions may look at: all of the past, and each other causally. One row serves a single position; more
   * take [group · count, past + count]. An empty past is a row that nobody sees.
   */
  #mask(past: number, count: number): ort.Tensor {
    if (count === 1 && past > 0) return new ort.Tensor("float32", this.#zeros.subarray(0, past + 1), [1, past + 1]);
    const { heads, kv_heads: kvHeads } = this.#manifest.architecture;
    const rows = (heads / kvHeads) * count;
    const pastColumns = Math.max(past, 1);
    const columns = pastColumns + count;
    const mask = new Float32Array(rows * columns);
    for (let row = 0; row < rows; row++) {
      const start = row * columns;
      if (past === 0) mask[start] = MASKED;
      mask.fill(MASKED, start + pastColumns + (row % count) + 1, start + columns);
    }
    return new ort.Tensor("float32", mask, [rows, columns]);
  }
}

function sessionOptions(
  dir: string,
  provider: ExecutionProvider,
  threads: number,
): ort.InferenceSession.SessionOptions {
  return {
    executionProviders: provider === "cpu" ? ["cpu"] : [provider, "cpu"],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    graphOptimizationLevel: "all",
    logSeverityLevel: 3,
    extra: {
      session: {
        model_external_initializers_file_folder_path: dir,
        // Sessions take turns. Spinning makes the kernels of one run hand over fast; a pool that went on spinning after its
        // run would steal the cores from the next session's.
        intra_op: { allow_spinning: "1" },
        force_spinning_stop: "1",
        // Weights outside the arena, which would round them up and keep what loading them took.
        use_device_allocator_for_initializers: "1",
      },
    },
  };
}

function floats(outputs: ort.InferenceSession.OnnxValueMapType, name: string): Float32Array {
  const data = outputs[name]?.data;
  if (!(data instanceof Float32Array)) throw new TypeError(`the graph gave no float32 output '${name}'`);
  return data;
}
