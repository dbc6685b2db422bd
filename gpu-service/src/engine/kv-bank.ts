import type { Architecture } from "@fathom/shared";
import { type LayerRange, laneCapacity } from "./kv-layout.ts";
import { LaneOrder } from "./lane-order.ts";

/** K and V of one layer, float32 [lanes, kv_heads, stride, head_dim] each. */
export interface LayerKv {
  keys: Float32Array<ArrayBuffer>;
  values: Float32Array<ArrayBuffer>;
  /** The same memory, two values at a time. */
  keyPairs: Float64Array<ArrayBuffer>;
  valuePairs: Float64Array<ArrayBuffer>;
}

function layerKv(size: number): LayerKv {
  const [keys, values] = [new Float32Array(size), new Float32Array(size)];
  return { keys, values, keyPairs: new Float64Array(keys.buffer), valuePairs: new Float64Array(values.buffer) };
}

interface SegmentKv {
  range: LayerRange;
  lanes: number;
  layers: LayerKv[];
}

/** K/V of sequences of similar length, a lane each. Lanes have room for `stride` positions. */
export class KvBank {
  readonly order = new LaneOrder();
  readonly #kvHeads: number;
  readonly #headDim: number;
  readonly #segments: SegmentKv[];
  /** Positions of each sequence that hold something. */
  readonly #used = new Map<string, number>();
  #stride = 0;
  /** Changes whenever the memory moves; views taken before are stale then. */
  #version = 0;

  constructor({ kv_heads: kvHeads, head_dim: headDim }: Architecture, segments: readonly LayerRange[]) {
    this.#kvHeads = kvHeads;
    this.#headDim = headDim;
    this.#segments = segments.map((range) => ({
      range,
      lanes: 0,
      layers: Array.from({ length: range.to - range.from }, () => layerKv(0)),
    }));
  }

  get stride(): number {
    return this.#stride;
  }

  get version(): number {
    return this.#version;
  }

  get bytes(): number {
    const perLane = 2 * this.#kvHeads * this.#stride * this.#headDim * Float32Array.BYTES_PER_ELEMENT;
    return this.#segments.reduce((sum, { lanes, layers }) => sum + lanes * layers.length * perLane, 0);
  }

  /** Gives a sequence a lane for `stride` positions at least. */
  add(id: string, depth: number, stride: number): void {
    const more = (segment: SegmentKv) =>
      this.order.deeperThan(segment.range.from) + (depth > segment.range.from ? 1 : 0);
    this.#allocate(Math.max(stride, this.#stride), more);
    for (const { from, to, id: moved } of this.order.insert(id, depth)) this.#copyLane(moved, from, to);
    this.#used.set(id, 0);
  }

  remove(id: string): void {
    for (const { from, to, id: moved } of this.order.remove(id)) this.#copyLane(moved, from, to);
    this.#used.delete(id);
    if (this.order.size === 0) this.compact(0);
  }

  /** Makes room for `stride` positions in every lane. */
  grow(stride: number): void {
    if (stride > this.#stride) this.#allocate(stride, ({ range }) => this.order.deeperThan(range.from));
  }

  /** Gives back what the present sequences do not need. */
  compact(stride: number): void {
    this.#allocate(stride, ({ range }) => this.order.deeperThan(range.from), true);
  }

  /** Positions of a sequence that were written so far. */
  used(id: string): number {
    return this.#used.get(id) ?? 0;
  }

  layer(segment: number, index: number): LayerKv {
    const kv = this.#segments[segment]?.layers[index];
    if (!kv) throw new RangeError(`there is no K/V for layer ${index} of segment ${segment}`);
    return kv;
  }

  /** Says that positions up to `end` (exclusive) of a sequence are written. */
  mark(id: string, end: number): void {
    this.#used.set(id, Math.max(this.used(id), end));
  }

  /** Offset of a lane's head at a position, in values. */
  offset(lane: number, head: number, position: number): number {
    return ((lane * this.#kvHeads + head) * this.#stride + position) * this.#headDim;
  }

  #copyLane(id: string, from: number, to: number): void {
    const length = this.used(id) * this.#headDim;
    for (const { lanes, layers } of this.#segments) {
      if (from >= lanes || to >= lanes) continue;
      for (const { keys, values } of layers) {
        for (let head = 0; head < this.#kvHeads; head++) {
          const source = this.offset(from, head, 0);
          keys.copyWithin(this.offset(to, head, 0), source, source + length);
          values.copyWithin(this.offset(to, head, 0), source, source + length);
        }
      }
    }
  }

  #allocate(stride: number, lanesOf: (segment: SegmentKv) => number, shrink = false): void {
    const old = this.#stride;
    const moved = stride !== old;
    const lane = this.#kvHeads * this.#headDim;
    for (const segment of this.#segments) {
      const wanted = laneCapacity(lanesOf(segment));
      const lanes = shrink ? wanted : Math.max(segment.lanes, wanted);
      if (!moved && lanes === segment.lanes) continue;
      this.#version++;
      for (const [index, kv] of segment.layers.entries()) {
        const fresh = layerKv(lanes * lane * stride);
        for (const id of this.order.ids) {
          const at = this.order.lane(id);
          if (at >= segment.lanes || at >= lanes) continue;
          const length = Math.min(this.used(id), stride) * this.#headDim;
          for (let head = 0; head < this.#kvHeads; head++) {
            const source = (at * this.#kvHeads + head) * old * this.#headDim;
            const target = (at * this.#kvHeads + head) * stride * this.#headDim;
            fresh.keys.set(kv.keys.subarray(source, source + length), target);
            fresh.values.set(kv.values.subarray(source, source + length), target);
          }
        }
        segment.layers[index] = fresh;
      }
      segment.lanes = lanes;
    }
    this.#stride = stride;
  }
}
