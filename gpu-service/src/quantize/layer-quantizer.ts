import { type Architecture, blockLayout, LAYER_MATRICES, layerMatrixShape, type Manifest } from "@fathom/shared";
import ort from "onnxruntime-node";
import type { TensorBytes } from "../checkpoint/dequantize.ts";
import type { Checkpoint } from "../checkpoint/open-checkpoint.ts";
import { readTensor } from "../checkpoint/read-tensor.ts";
import { DEFAULT_BLOCK_SIZE } from "../checkpoint/stored-bytes.ts";
import { causalMask } from "../graph/causal-mask.ts";
import { buildGramLayer, gramOf, TRAINING_LAYER } from "../graph/llama-training.ts";
import { encodeModel } from "../graph/onnx.ts";
import { ropeTable } from "../graph/rope.ts";
import { gptq } from "./gptq.ts";
import { inverseFactor } from "./inverse-factor.ts";

/** Share of the mean diagonal that makes a Gram matrix safely invertible. */
const DAMPING = 0.01;

/**
 * Quantises a checkpoint's layer matrices one layer after the other (GPTQ): what a layer is fitted to is what comes out of the
 * layers before it as they are stored, so that it also makes up for their errors.
 */
export class LayerQuantizer {
  readonly #checkpoint: Checkpoint;
  readonly #a: Architecture;
  readonly #session: ort.InferenceSession;
  readonly #shared: Record<string, ort.Tensor>;
  /** The residual stream of every window, float32 [length, H], at the layer that comes next. */
  #streams: Float32Array[];
  readonly #kept: ReadonlySet<string>;
  readonly #length: number;
  #layer = -1;
  readonly #encoded = new Map<string, TensorBytes>();

  private constructor(
    checkpoint: Checkpoint,
    session: ort.InferenceSession,
    streams: Float32Array[],
    kept: ReadonlySet<string>,
    length: number,
  ) {
    this.#kept = kept;
    this.#checkpoint = checkpoint;
    this.#a = checkpoint.manifest.architecture;
    this.#session = session;
    this.#streams = streams;
    this.#length = length;
    const { cos, sin, width } = ropeTable(this.#a, length);
    const group = this.#a.heads / this.#a.kv_heads;
    this.#shared = {
      [TRAINING_LAYER.cos]: new ort.Tensor("float32", cos, [length, width]),
      [TRAINING_LAYER.sin]: new ort.Tensor("float32", sin, [length, width]),
      [TRAINING_LAYER.mask]: new ort.Tensor("float32", causalMask(group, length), [group * length, length]),
    };
  }

  /**
   * @param windows token ids, all of the same length
   * @param kept matrices that are stored exactly as they are
   */
  static async create(
    checkpoint: Checkpoint,
    windows: readonly Int32Array[],
    kept: ReadonlySet<string>,
    threads: number,
  ): Promise<LayerQuantizer> {
    const { architecture } = checkpoint.manifest;
    const size = architecture.hidden_size;
    const table = await readTensor(checkpoint, "embed");
    const streams = windows.map((tokens) => {
      const stream = new Float32Array(tokens.length * size);
      for (const [i, token] of tokens.entries()) stream.set(table.subarray(token * size, (token + 1) * size), i * size);
      return stream;
    });
    const session = await ort.InferenceSession.create(encodeModel(buildGramLayer(architecture)), {
      intraOpNumThreads: threads,
      executionProviders: ["cpu"],
    });
    return new LayerQuantizer(checkpoint, session, streams, kept, windows[0]?.length ?? 0);
  }

  /** The stored form of a layer's matrix; undefined for those that are kept and for other tensors. Tensors must be asked for in file order. */
  async encode(name: string, quantization: Manifest["quantization"]): Promise<TensorBytes | undefined> {
    const match = /^layers\.(\d+)\.(.+)$/.exec(name);
    if (!match || !LAYER_MATRICES.some((matrix) => matrix === match[2])) return undefined;
    const layer = Number(match[1]);
    while (this.#layer < layer) await this.#quantizeLayer(++this.#layer, quantization);
    const bytes = this.#encoded.get(name);
    this.#encoded.delete(name);
    return bytes;
  }

  close(): Promise<void> {
    return this.#session.release();
  }

  async #quantizeLayer(layer: number, quantization: Manifest["quantization"]): Promise<void> {
    const weights = new Map<string, Float32Array>();
    for (const name of ["attn_norm", "mlp_norm", ...LAYER_MATRICES]) {
      weights.set(name, await readTensor(this.#checkpoint, `layers.${layer}.${name}`));
    }
    const grams = new Map(
      LAYER_MATRICES.map((matrix) => [matrix, new Float64Array(layerMatrixShape(this.#a, matrix)[1] ** 2)]),
    );
    for (const stream of this.#streams) {
      const outputs = await this.#run(stream, weights, LAYER_MATRICES.map(gramOf));
      for (const [matrix, sum] of grams) {
        const gram = outputs[gramOf(matrix)]?.data as Float32Array;
        for (let i = 0; i < sum.length; i++) sum[i] = (sum[i] as number) + (gram[i] as number);
      }
    }
    for (const [matrix, gram] of grams) {
      const [n, k] = layerMatrixShape(this.#a, matrix);
      const values = weights.get(matrix) ?? new Float32Array(0);
      const name = `layers.${layer}.${matrix}`;
      if (this.#kept.has(name)) continue;
      const { block_size: block = DEFAULT_BLOCK_SIZE, offsets = false } = blockLayout(quantization, name);
      const options = { block, offsets };
      const { bytes, values: stored } = gptq(values, n, k, inverseFactor(gram, k, DAMPING), options);
      this.#encoded.set(name, bytes);
      weights.set(matrix, stored);
    }
    const next: Float32Array[] = [];
    for (const stream of this.#streams) {
      const outputs = await this.#run(stream, weights, [TRAINING_LAYER.hiddenOut]);
      next.push(outputs[TRAINING_LAYER.hiddenOut]?.data as Float32Array);
    }
    this.#streams = next;
  }

  #run(stream: Float32Array, weights: ReadonlyMap<string, Float32Array>, fetches: string[]) {
    const feeds: Record<string, ort.Tensor> = {
      ...this.#shared,
      [TRAINING_LAYER.hidden]: new ort.Tensor("float32", stream, [1, this.#length, this.#a.hidden_size]),
    };
    for (const [name, values] of weights) {
      const matrix = LAYER_MATRICES.find((known) => known === name);
      feeds[name] = new ort.Tensor(
        "float32",
        values,
        matrix ? layerMatrixShape(this.#a, matrix) : [this.#a.hidden_size],
      );
    }
    return this.#session.run(feeds, fetches);
  }
}
