import type { Architecture } from "@fathom/shared";
import ort from "onnxruntime-node";
import {
  buildTrainingHead,
  buildTrainingLayer,
  gradientOf,
  LAYER_TENSORS,
  TRAINING_HEAD,
  TRAINING_LAYER,
} from "../graph/llama-training.ts";
import { encodeModel } from "../graph/onnx.ts";
import { type RopeTable, ropeTable } from "../graph/rope.ts";
import { type Batch, type Targets, targetsOf } from "./batch.ts";
import { accumulate, type Gradients, headName, type Parameters, parameter } from "./parameters.ts";

/** Rows of logits at a time: one chunk of a 49K vocabulary takes 200 MB and as much again for its gradient. */
const HEAD_CHUNK = 1024;
const MASKED = -1e30;

/** An exit to run in a step, with the weight of its cross-entropy in the loss. */
export interface ExitTerm {
  depth: number;
  weight: number;
}

export interface ExitLoss {
  depth: number;
  /** Mean cross-entropy over the batch's targets, nats. */
  loss: number;
  /** Share of targets whose most probable token is the label. */
  accuracy: number;
}

export interface BackpropOptions {
  threads: number;
}

type Feeds = Record<string, ort.Tensor>;
type Outputs = ort.InferenceSession.OnnxValueMapType;

interface LayerSessions {
  forward: ort.InferenceSession;
  backward: ort.InferenceSession;
  /** Backward-only inputs that the forward pass gives. */
  saved: readonly string[];
}

/** Computes losses at every exit and the gradients of their weighted sum, layer by layer on ONNX Runtime. */
export class Backprop {
  readonly #a: Architecture;
  readonly #layer: LayerSessions;
  readonly #head: ort.InferenceSession;
  readonly #rope: RopeTable;

  private constructor(a: Architecture, layer: LayerSessions, head: ort.InferenceSession) {
    this.#a = a;
    this.#layer = layer;
    this.#head = head;
    this.#rope = ropeTable(a, a.context_length);
  }

  static async create(a: Architecture, { threads }: BackpropOptions): Promise<Backprop> {
    const options: ort.InferenceSession.SessionOptions = {
      executionProviders: ["cpu"],
      intraOpNumThreads: threads,
      logSeverityLevel: 3,
      extra: { session: { intra_op: { allow_spinning: "1" }, force_spinning_stop: "1" } },
    };
    const session = (model: Uint8Array) => ort.InferenceSession.create(model, options);
    const { forward, backward, saved } = buildTrainingLayer(a, true);
    const layer = {
      forward: await session(encodeModel(forward)),
      backward: await session(encodeModel(backward)),
      saved,
    };
    return new Backprop(
      a,
      layer,
      await session(encodeModel(buildTrainingHead(a, { trainable: true, teacher: false }))),
    );
  }

  /**
   * Runs a batch forward to the deepest of `terms` and back.
   * @param terms exits in ascending order; an exit of weight 0 is measured but gives no gradient
   * @param gradients receives Σ weight · loss, added to what is there
   */
  async run(
    parameters: Parameters,
    batch: Batch,
    terms: readonly ExitTerm[],
    gradients: Gradients,
  ): Promise<ExitLoss[]> {
    const targets = targetsOf(batch);
    const deepest = terms.at(-1)?.depth ?? 0;
    const shared = this.#sharedFeeds(batch.length);
    const shape = [batch.rows, batch.length, this.#a.hidden_size];

    const saved: Outputs[] = [];
    const exitRows = new Map<number, Float32Array>();
    let hidden = this.#embed(parameters, batch);
    for (let layer = 0; layer < deepest; layer++) {
      const feeds = {
        ...shared,
        ...this.#layerFeeds(parameters, layer),
        [TRAINING_LAYER.hidden]: tensor(hidden, shape),
      };
      const outputs = await this.#layer.forward.run(pick(feeds, this.#layer.forward));
      saved.push({ ...outputs, [TRAINING_LAYER.hidden]: tensor(hidden, shape) });
      hidden = floats(outputs, TRAINING_LAYER.hiddenOut);
      if (terms.some(({ depth }) => depth === layer + 1)) exitRows.set(layer + 1, this.#gather(hidden, targets));
    }

    const { losses, rowGradients } = await this.#runHead(parameters, terms, exitRows, targets, gradients);

    let dHidden: Float32Array = new Float32Array(hidden.length);
    for (let layer = deepest - 1; layer >= 0; layer--) {
      const rows = rowGradients.get(layer + 1);
      if (rows) this.#scatterAdd(dHidden, rows, targets);
      const feeds = { ...shared, ...this.#layerFeeds(parameters, layer), ...saved[layer] } as Feeds;
      feeds[gradientOf(TRAINING_LAYER.hiddenOut)] = tensor(dHidden, shape);
      const outputs = await this.#layer.backward.run(pick(feeds, this.#layer.backward));
      saved.pop();
      for (const name of LAYER_TENSORS)
        accumulate(gradients, `layers.${layer}.${name}`, floats(outputs, gradientOf(name)));
      dHidden = floats(outputs, gradientOf(TRAINING_LAYER.hidden));
    }
    this.#embedBackward(batch, dHidden, parameters, gradients);
    return losses;
  }

  /** Frees the native sessions. */
  async close(): Promise<void> {
    await Promise.all([this.#layer.forward.release(), this.#layer.backward.release(), this.#head.release()]);
  }

  async #runHead(
    parameters: Parameters,
    terms: readonly ExitTerm[],
    exitRows: ReadonlyMap<number, Float32Array>,
    targets: Targets,
    gradients: Gradients,
  ): Promise<{ losses: ExitLoss[]; rowGradients: Map<number, Float32Array> }> {
    const { hidden_size: size, vocab_size: vocab } = this.#a;
    const name = headName(this.#a);
    const count = targets.positions.length;
    const labels = BigInt64Array.from(targets.labels, BigInt);
    const weights = {
      [TRAINING_HEAD.norm]: tensor(parameter(parameters, "norm"), [size]),
      [TRAINING_HEAD.head]: tensor(parameter(parameters, name), [vocab, size]),
    };
    const losses: ExitLoss[] = [];
    const rowGradients = new Map<number, Float32Array>();
    for (const { depth, weight } of terms) {
      const rows = exitRows.get(depth) ?? new Float32Array();
      const rowGradient = new Float32Array(rows.length);
      let loss = 0;
      let correct = 0;
      for (let from = 0; from < count; from += HEAD_CHUNK) {
        const to = Math.min(count, from + HEAD_CHUNK);
        const outputs = await this.#head.run({
          ...weights,
          [TRAINING_HEAD.rows]: tensor(rows.subarray(from * size, to * size), [to - from, size]),
          [TRAINING_HEAD.labels]: new ort.Tensor("int64", labels.subarray(from, to), [to - from, 1]),
          [TRAINING_HEAD.lossWeight]: tensor(new Float32Array(to - from).fill(weight / count), [to - from, 1]),
        });
        for (const value of floats(outputs, TRAINING_HEAD.crossEntropy)) loss += value;
        const predicted = outputs[TRAINING_HEAD.predicted]?.data as BigInt64Array;
        for (let i = from; i < to; i++) if (predicted[i - from] === labels[i]) correct++;
        rowGradient.set(floats(outputs, gradientOf(TRAINING_HEAD.rows)), from * size);
        if (weight === 0) continue;
        accumulate(gradients, "norm", floats(outputs, gradientOf(TRAINING_HEAD.norm)));
        accumulate(gradients, name, floats(outputs, gradientOf(TRAINING_HEAD.head)));
      }
      rowGradients.set(depth, rowGradient);
      losses.push({ depth, loss: loss / count, accuracy: correct / count });
    }
    return { losses, rowGradients };
  }

  #sharedFeeds(length: number): Feeds {
    const { cos, sin, width } = this.#rope;
    const group = this.#a.heads / this.#a.kv_heads;
    const mask = new Float32Array(group * length * length);
    for (let row = 0; row < group * length; row++) {
      mask.fill(MASKED, row * length + (row % length) + 1, (row + 1) * length);
    }
    return {
      [TRAINING_LAYER.cos]: tensor(cos.subarray(0, length * width), [length, width]),
      [TRAINING_LAYER.sin]: tensor(sin.subarray(0, length * width), [length, width]),
      [TRAINING_LAYER.mask]: tensor(mask, [group * length, length]),
    };
  }

  #layerFeeds(parameters: Parameters, layer: number): Feeds {
    const feeds: Feeds = {};
    for (const name of LAYER_TENSORS) {
      const values = parameter(parameters, `layers.${layer}.${name}`);
      feeds[name] = tensor(values, matrixShape(this.#a, name, values.length));
    }
    return feeds;
  }

  #embed(parameters: Parameters, { tokens }: Batch): Float32Array {
    const size = this.#a.hidden_size;
    const table = parameter(parameters, "embed");
    const hidden = new Float32Array(tokens.length * size);
    for (const [i, token] of tokens.entries()) hidden.set(table.subarray(token * size, (token + 1) * size), i * size);
    return hidden;
  }

  #embedBackward({ tokens }: Batch, dHidden: Float32Array, parameters: Parameters, gradients: Gradients): void {
    const size = this.#a.hidden_size;
    const sum = gradients.get("embed") ?? new Float32Array(parameter(parameters, "embed").length);
    for (const [i, token] of tokens.entries()) {
      for (let j = 0; j < size; j++)
        sum[token * size + j] = (sum[token * size + j] as number) + (dHidden[i * size + j] as number);
    }
    gradients.set("embed", sum);
  }

  #gather(hidden: Float32Array, { positions }: Targets): Float32Array {
    const size = this.#a.hidden_size;
    const rows = new Float32Array(positions.length * size);
    for (const [i, position] of positions.entries())
      rows.set(hidden.subarray(position * size, (position + 1) * size), i * size);
    return rows;
  }

  #scatterAdd(dHidden: Float32Array, rows: Float32Array, { positions }: Targets): void {
    const size = this.#a.hidden_size;
    for (const [i, position] of positions.entries()) {
      for (let j = 0; j < size; j++) {
        const at = position * size + j;
        dHidden[at] = (dHidden[at] as number) + (rows[i * size + j] as number);
      }
    }
  }
}

function matrixShape(a: Architecture, name: (typeof LAYER_TENSORS)[number], values: number): number[] {
  if (name === "attn_norm" || name === "mlp_norm") return [values];
  const inputs = name === "attn.o" ? a.heads * a.head_dim : name === "mlp.down" ? a.intermediate_size : a.hidden_size;
  return [values / inputs, inputs];
}

function tensor(values: Float32Array, shape: readonly number[]): ort.Tensor {
  return new ort.Tensor("float32", values, shape);
}

/** The feeds that a session takes. */
function pick(feeds: Feeds, session: ort.InferenceSession): Feeds {
  return Object.fromEntries(session.inputNames.map((name) => [name, feeds[name]])) as Feeds;
}

function floats(outputs: Outputs, name: string): Float32Array {
  const data = outputs[name]?.data;
  if (!(data instanceof Float32Array)) throw new TypeError(`the graph gave no float32 output '${name}'`);
  return data;
}
