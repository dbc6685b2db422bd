import type { Architecture, Manifest } from "@fathom/shared";
import ort from "onnxruntime-node";
import { MASKED } from "../graph/causal-mask.ts";
import { buildDeviceSegment, DEVICE_SEGMENT } from "../graph/llama-device-segment.ts";
import { type RopeTable, ropeTable } from "../graph/rope.ts";
import type { Executor, ExecutorRow, HeadOutput } from "./executor.ts";
import { bytesPerRow, type LayerRange } from "./kv-layout.ts";
import {
  deepestWithHead,
  floats,
  loadHeads,
  rangeOf,
  runHead,
  type SessionOptions,
  segmentsOf,
  sessionOptions,
} from "./sessions.ts";

/** K/V of one sequence in one segment, on the device. */
interface DeviceKv {
  /** Positions held; the tensors have one row more, which nobody sees: an empty tensor is refused. */
  rows: number;
  tensors: Record<string, ort.Tensor>;
}

/**
 * The executor whose K/V stays in the memory of a WebGPU device from step to step. Sequences run one after the other: a batch
 * would have to be put together on the device at every change.
 */
export class DeviceExecutor implements Executor {
  readonly architecture: Architecture;
  readonly segments: readonly LayerRange[];
  readonly sharesPrefixes = false;
  readonly #sessions: readonly ort.InferenceSession[];
  readonly #heads: ReadonlyMap<number, ort.InferenceSession>;
  readonly #rope: RopeTable;
  readonly #kv = new Map<string, Map<number, DeviceKv>>();

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
    this.#rope = ropeTable(architecture, architecture.context_length);
  }

  static async load(options: SessionOptions): Promise<DeviceExecutor> {
    const { manifest, exits } = options;
    const segments = segmentsOf(exits);
    const sessions: ort.InferenceSession[] = [];
    for (const { from, to } of segments) {
      const locations: Record<string, "cpu" | "gpu-buffer"> = { [DEVICE_SEGMENT.hiddenOut]: "cpu" };
      for (let layer = from; layer < to; layer++) {
        locations[DEVICE_SEGMENT.presentK(layer)] = "gpu-buffer";
        locations[DEVICE_SEGMENT.presentV(layer)] = "gpu-buffer";
      }
      const own = { ...sessionOptions(options), preferredOutputLocation: locations };
      sessions.push(await ort.InferenceSession.create(buildDeviceSegment(manifest, from, to), own));
    }
    return new DeviceExecutor(manifest, segments, sessions, await loadHeads(options, sessionOptions(options)));
  }

  get kvBytes(): number {
    let bytes = 0;
    for (const sequence of this.#kv.values()) {
      for (const [segment, { rows }] of sequence) {
        const { from, to } = rangeOf(this.segments, segment);
        bytes += (to - from) * (rows + 1) * bytesPerRow(this.architecture);
      }
    }
    return bytes;
  }

  reserve(id: string): void {
    if (!this.#kv.has(id)) this.#kv.set(id, new Map());
  }

  release(id: string): void {
    for (const { tensors } of this.#kv.get(id)?.values() ?? []) dispose(tensors);
    this.#kv.delete(id);
  }

  compact(): void {}

  async run(segment: number, rows: readonly ExecutorRow[], input: BigInt64Array | Float32Array): Promise<Float32Array> {
    const size = this.architecture.hidden_size;
    const hidden = new Float32Array(rows.reduce((sum, { count }) => sum + count, 0) * size);
    let at = 0;
    for (const row of rows) {
      const width = segment === 0 ? 1 : size;
      const own = input.slice(at * width, (at + row.count) * width);
      hidden.set(await this.#runRow(segment, row, own), at * size);
      at += row.count;
    }
    return hidden;
  }

  headOf(depth: number): number {
    return deepestWithHead(this.#heads, depth);
  }

  head(depth: number, hidden: Float32Array, withLogits: boolean): Promise<HeadOutput> {
    return runHead(this.#heads, depth, hidden, this.architecture.hidden_size, withLogits);
  }

  readKv(): Float32Array {
    throw new Error("K/V on a device cannot be read");
  }

  writeKv(): void {
    throw new Error("K/V on a device cannot be written");
  }

  async close(): Promise<void> {
    for (const id of [...this.#kv.keys()]) this.release(id);
    for (const session of this.#sessions) await session.release();
    await Promise.all([...new Set(this.#heads.values())].map((head) => head.release()));
  }

  async #runRow(segment: number, row: ExecutorRow, input: BigInt64Array | Float32Array): Promise<Float32Array> {
    const session = this.#sessions[segment];
    const sequence = this.#kv.get(row.id);
    if (!session || !sequence) throw new RangeError(`sequence '${row.id}' or segment ${segment} is not there`);
    const { cos, sin, width } = this.#rope;
    const rope = (table: Float32Array) =>
      new ort.Tensor("float32", table.subarray(row.from * width, (row.from + row.count) * width), [row.count, width]);
    const past = sequence.get(segment) ?? this.#empty(segment);
    const outputs = await session.run({
      [DEVICE_SEGMENT.cos]: rope(cos),
      [DEVICE_SEGMENT.sin]: rope(sin),
      [DEVICE_SEGMENT.mask]: this.#mask(row),
      // A rolled-back sequence has rows beyond `from`: they are left behind.
      [DEVICE_SEGMENT.keep]: new ort.Tensor("int64", BigInt64Array.of(BigInt(row.from + 1)), [1]),
      ...past.tensors,
      ...(input instanceof Float32Array
        ? { [DEVICE_SEGMENT.hidden]: new ort.Tensor("float32", input, [row.count, this.architecture.hidden_size]) }
        : { [DEVICE_SEGMENT.tokens]: new ort.Tensor("int64", input, [row.count]) }),
    });
    const tensors: Record<string, ort.Tensor> = {};
    const { from, to } = rangeOf(this.segments, segment);
    for (let layer = from; layer < to; layer++) {
      for (const [name, present] of [
        [DEVICE_SEGMENT.pastK(layer), outputs[DEVICE_SEGMENT.presentK(layer)]],
        [DEVICE_SEGMENT.pastV(layer), outputs[DEVICE_SEGMENT.presentV(layer)]],
      ] as const) {
        if (!present) throw new TypeError(`the graph gave no K/V for layer ${layer}`);
        tensors[name] = present;
      }
    }
    dispose(past.tensors);
    sequence.set(segment, { rows: row.from + row.count, tensors });
    return floats(outputs, DEVICE_SEGMENT.hiddenOut);
  }

  #empty(segment: number): DeviceKv {
    const { kv_heads: kvHeads, head_dim: headDim } = this.architecture;
    const tensors: Record<string, ort.Tensor> = {};
    const { from, to } = rangeOf(this.segments, segment);
    for (let layer = from; layer < to; layer++) {
      for (const name of [DEVICE_SEGMENT.pastK(layer), DEVICE_SEGMENT.pastV(layer)]) {
        tensors[name] = new ort.Tensor("float32", new Float32Array(kvHeads * headDim), [kvHeads, 1, headDim]);
      }
    }
    return { rows: 0, tensors };
  }

  /** float32 [G·S, 1 + past + S]: the first row of the K/V belongs to nobody. */
  #mask({ from, count }: ExecutorRow): ort.Tensor {
    const { heads, kv_heads: kvHeads } = this.architecture;
    const rows = (heads / kvHeads) * count;
    const columns = 1 + from + count;
    const mask = new Float32Array(rows * columns);
    for (let row = 0; row < rows; row++) {
      mask[row * columns] = MASKED;
      mask.fill(MASKED, row * columns + 1 + from + (row % count) + 1, (row + 1) * columns);
    }
    return new ort.Tensor("float32", mask, [rows, columns]);
  }
}

function dispose(tensors: Record<string, ort.Tensor>): void {
  for (const tensor of Object.values(tensors)) if (tensor.location === "gpu-buffer") tensor.dispose();
}
