import type { Architecture, Manifest } from "@fathom/shared";
import ort from "onnxruntime-node";
import { buildSegment, SEGMENT } from "../graph/llama-segment.ts";
import { ropeTable } from "../graph/rope.ts";
import { batchFeeds, groupRows, type RowGroup } from "./batch-feeds.ts";
import type { Executor, ExecutorRow, HeadOutput } from "./executor.ts";
import type { KvBank } from "./kv-bank.ts";
import type { LayerRange } from "./kv-layout.ts";
import { KvStore } from "./kv-store.ts";
import {
  deepestWithHead,
  floats,
  loadHeads,
  rangeOf,
  runHead,
  type SessionOptions,
  SHRINK_ARENA,
  segmentsOf,
  sessionOptions,
} from "./sessions.ts";

/** Rows from which on a run's memory is given back. */
const LARGE_RUN = 32;

/** The executor whose K/V lies in main memory: the CPU's, and CUDA's, which has no device tensors in Node. */
export class HostExecutor implements Executor {
  readonly architecture: Architecture;
  readonly segments: readonly LayerRange[];
  readonly sharesPrefixes = true;
  readonly #sessions: readonly ort.InferenceSession[];
  /** By depth. */
  readonly #heads: ReadonlyMap<number, ort.InferenceSession>;
  readonly #kv: KvStore;
  readonly #rope: Record<string, ort.Tensor>;
  /** Views of K/V by segment, lanes and bank; a bank's are stale once its memory has moved. */
  readonly #views = new WeakMap<KvBank, { version: number; bySegment: Map<string, Record<string, ort.Tensor>> }>();

  private constructor(
    { architecture }: Manifest,
    segments: readonly LayerRange[],
    sessions: readonly ort.InferenceSession[],
    heads: ReadonlyMap<number, ort.InferenceSession>,
  ) {
    this.architecture = architecture;
    this.segments = segments;
    this.#sessions = sessions;
    this.#heads = heads;
    this.#kv = new KvStore(architecture, segments);
    const { cos, sin, width } = ropeTable(architecture, architecture.context_length);
    const shape = [architecture.context_length, width];
    this.#rope = {
      [SEGMENT.cos]: new ort.Tensor("float32", cos, shape),
      [SEGMENT.sin]: new ort.Tensor("float32", sin, shape),
    };
  }

  static async load(options: SessionOptions): Promise<HostExecutor> {
    const { manifest, exits } = options;
    const segments = segmentsOf(exits);
    const sessions: ort.InferenceSession[] = [];
    for (const { from, to } of segments) {
      sessions.push(await ort.InferenceSession.create(buildSegment(manifest, from, to), sessionOptions(options)));
    }
    return new HostExecutor(manifest, segments, sessions, await loadHeads(options, sessionOptions(options)));
  }

  get kvBytes(): number {
    return this.#kv.bytes;
  }

  reserve(id: string, depth: number, rows: number): void {
    this.#kv.reserve(id, depth, rows);
  }

  release(id: string): void {
    this.#kv.release(id);
  }

  compact(): void {
    this.#kv.compact();
  }

  async run(segment: number, rows: readonly ExecutorRow[], input: BigInt64Array | Float32Array): Promise<Float32Array> {
    const groups = groupRows(rows, (id) => this.#kv.bank(id));
    const [only] = groups;
    if (groups.length === 1 && only && only.inOrder) return this.#runGroup(segment, only, input);
    const size = this.architecture.hidden_size;
    const width = segment === 0 ? 1 : size;
    const hidden = new Float32Array(rows.reduce((sum, { count }) => sum + count, 0) * size);
    for (const group of groups) {
      const own = gather(input, group, width);
      const outputs = await this.#runGroup(segment, group, own);
      let at = 0;
      for (const { row, offset } of group.rows) {
        hidden.set(outputs.subarray(at * size, (at + row.count) * size), offset * size);
        at += row.count;
      }
    }
    return hidden;
  }

  headOf(depth: number): number {
    return deepestWithHead(this.#heads, depth);
  }

  head(depth: number, hidden: Float32Array, withLogits: boolean): Promise<HeadOutput> {
    return runHead(this.#heads, depth, hidden, this.architecture.hidden_size, withLogits);
  }

  readKv(id: string, depth: number, from: number, to: number): Float32Array {
    const kv = new Float32Array(depth * this.#kvSize(to - from));
    this.#eachHead(id, depth, from, to - from, (values, offset, at, length) => {
      kv.set(values.subarray(offset, offset + length), at);
    });
    return kv;
  }

  writeKv(id: string, depth: number, from: number, kv: Float32Array): void {
    const count = kv.length / (depth * this.#kvSize(1));
    const own = Math.min(depth, this.#kv.depth(id));
    this.#eachHead(id, own, from, count, (values, offset, at, length) => {
      values.set(kv.subarray(at, at + length), offset);
    });
    this.#kv.bank(id).mark(id, from + count);
  }

  async close(): Promise<void> {
    for (const session of this.#sessions) await session.release();
    await Promise.all([...new Set(this.#heads.values())].map((head) => head.release()));
  }

  async #runGroup(segment: number, group: RowGroup, input: BigInt64Array | Float32Array): Promise<Float32Array> {
    const session = this.#sessions[segment];
    if (!session) throw new RangeError(`there is no segment ${segment}`);
    const count = group.rowCount;
    const outputs = await session.run(
      {
        ...this.#rope,
        ...batchFeeds(this.architecture, group),
        ...this.#pastViews(segment, group),
        ...(input instanceof Float32Array
          ? { [SEGMENT.hidden]: new ort.Tensor("float32", input, [count, this.architecture.hidden_size]) }
          : { [SEGMENT.tokens]: new ort.Tensor("int64", input, [count]) }),
      },
      count > LARGE_RUN ? SHRINK_ARENA : {},
    );
    this.#store(segment, group, floats(outputs, SEGMENT.newKv));
    return floats(outputs, SEGMENT.hiddenOut);
  }

  /** The K/V of the group's lanes, zero-copy. Tensors are kept: most steps read the same memory as the one before. */
  #pastViews(segment: number, { bank, firstLane, laneCount }: RowGroup): Record<string, ort.Tensor> {
    let views = this.#views.get(bank);
    if (views?.version !== bank.version) {
      views = { version: bank.version, bySegment: new Map() };
      this.#views.set(bank, views);
    }
    const key = `${segment}/${firstLane}/${laneCount}`;
    const kept = views.bySegment.get(key);
    if (kept) return kept;
    const { kv_heads: kvHeads, head_dim: headDim } = this.architecture;
    const shape = [laneCount, kvHeads, bank.stride, headDim];
    const [start, end] = [bank.offset(firstLane, 0, 0), bank.offset(firstLane + laneCount, 0, 0)];
    const fresh: Record<string, ort.Tensor> = {};
    const { from, to } = rangeOf(this.segments, segment);
    for (let layer = from; layer < to; layer++) {
      const { keys, values } = bank.layer(segment, layer - from);
      fresh[SEGMENT.pastK(layer)] = new ort.Tensor("float32", keys.subarray(start, end), shape);
      fresh[SEGMENT.pastV(layer)] = new ort.Tensor("float32", values.subarray(start, end), shape);
    }
    views.bySegment.set(key, fresh);
    return fresh;
  }

  /** Copies the new rows, float32 [layers · 2 · L, kv_heads, S, D], to where the next step will look for them. */
  #store(segment: number, { bank, rows, laneCount, firstLane, positions }: RowGroup, newKv: Float32Array): void {
    const { kv_heads: kvHeads, head_dim: headDim } = this.architecture;
    const { from, to } = rangeOf(this.segments, segment);
    const fresh = new Float64Array(newKv.buffer, newKv.byteOffset, newKv.length / 2);
    for (let layer = from; layer < to; layer++) {
      const { keyPairs, valuePairs } = bank.layer(segment, layer - from);
      for (const { row, lane } of rows) {
        const length = row.count * headDim;
        for (let head = 0; head < kvHeads; head++) {
          const target = bank.offset(lane, head, row.from);
          const block = 2 * (layer - from) * laneCount + lane - firstLane;
          copy(fresh, (block * kvHeads + head) * positions * headDim, keyPairs, target, length);
          copy(fresh, ((block + laneCount) * kvHeads + head) * positions * headDim, valuePairs, target, length);
        }
      }
    }
    for (const { row } of rows) bank.mark(row.id, row.from + row.count);
  }

  /** Calls `visit` for K and V of each head of each layer, with the offset in the layer's values and in a block of `readKv`. */
  #eachHead(
    id: string,
    depth: number,
    from: number,
    count: number,
    visit: (values: Float32Array, offset: number, at: number, length: number) => void,
  ): void {
    const { kv_heads: kvHeads, head_dim: headDim } = this.architecture;
    const bank = this.#kv.bank(id);
    const lane = bank.order.lane(id);
    const length = count * headDim;
    let at = 0;
    for (const [segment, range] of this.segments.entries()) {
      for (let layer = range.from; layer < Math.min(range.to, depth); layer++) {
        const { keys, values } = bank.layer(segment, layer - range.from);
        for (const part of [keys, values]) {
          for (let head = 0; head < kvHeads; head++, at += length)
            visit(part, bank.offset(lane, head, from), at, length);
        }
      }
    }
  }

  #kvSize(positions: number): number {
    return 2 * this.architecture.kv_heads * positions * this.architecture.head_dim;
  }
}

/**
 * Copies a few values, two at a time, faster than `set` on a subarray makes its views. Offsets and length are multiples of a
 * head's even size.
 */
function copy(source: Float64Array, from: number, target: Float64Array, to: number, length: number): void {
  if (length > 512) {
    target.set(source.subarray(from / 2, (from + length) / 2), to / 2);
    return;
  }
  const [start, end, shift] = [from / 2, (from + length) / 2, (to - from) / 2];
  for (let i = start; i < end; i++) target[i + shift] = source[i] as number;
}

function gather<T extends BigInt64Array | Float32Array>(input: T, group: RowGroup, width: number): T {
  const own = (
    input instanceof Float32Array ? new Float32Array(group.rowCount * width) : new BigInt64Array(group.rowCount * width)
  ) as T;
  let at = 0;
  for (const { row, offset } of group.rows) {
    (own as Float32Array).set(input.subarray(offset * width, (offset + row.count) * width) as Float32Array, at * width);
    at += row.count;
  }
  return own;
}
