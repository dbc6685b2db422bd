import { type Architecture, LAYER_MATRICES } from "@fathom/shared";
import { causalMask } from "../graph/causal-mask.ts";
import {
  ADAPTER_TENSORS,
  adapterNames,
  gradientOf,
  LAYER_TENSORS,
  type LayerLearns,
  learntTensors,
  TRAINING_LAYER,
} from "../graph/llama-training.ts";
import { type RopeTable, ropeTable } from "../graph/rope.ts";
import { type Batch, targetsOf } from "./batch.ts";
import { type Frozen, lowestTrained, NOTHING_FROZEN } from "./frozen.ts";
import { type ExitLoss, type ExitTerm, HeadRunner } from "./head-runner.ts";
import { accumulate, type Gradients, type Parameters, parameter } from "./parameters.ts";
import {
  addToEmbedding,
  embedTokens,
  type Feeds,
  floats,
  gatherRows,
  layerTensorShape,
  type Outputs,
  pick,
  scatterRows,
  tensor,
} from "./tensors.ts";
import { type SessionOptions, TrainingSessions } from "./training-sessions.ts";

export type { ExitLoss, ExitTerm } from "./head-runner.ts";

export interface BackpropOptions extends SessionOptions {
  /** What gets no gradient. Default nothing. */
  frozen?: Frozen;
}

/** Who teaches: the same model at its full depth, or other parameters at theirs, such as the model before training. */
export type Teacher = "self" | Parameters;

export interface StepOptions {
  /** Needed as soon as a term has a distillation weight. */
  teacher?: Teacher | undefined;
  /** Multiplies every weight of the step: a micro-batch's share. Default 1. */
  scale?: number;
}

/** What an exit does on a batch: sums over its targets. */
export interface ExitScore {
  depth: number;
  targets: number;
  /** Sum of cross-entropies, nats. */
  loss: number;
  /** Targets whose most probable token is the label. */
  correct: number;
  /** Targets whose most probable token is full depth's. */
  agreed: number;
}

/** A batch on its way through the layers. */
interface Pass {
  shared: Feeds;
  shape: readonly number[];
}

/** Computes losses at every exit and the gradients of their weighted sum, layer by layer on ONNX Runtime. */
export class Backprop {
  readonly #a: Architecture;
  readonly #frozen: Frozen;
  readonly #lowest: number;
  readonly #sessions: TrainingSessions;
  readonly #head: HeadRunner;
  readonly #rope: RopeTable;

  constructor(a: Architecture, { frozen = NOTHING_FROZEN, ...options }: BackpropOptions) {
    this.#a = a;
    this.#frozen = frozen;
    this.#lowest = lowestTrained(frozen, a);
    this.#sessions = new TrainingSessions(a, options);
    this.#head = new HeadRunner(a, this.#sessions, frozen);
    this.#rope = ropeTable(a, a.context_length);
  }

  /**
   * Runs a batch forward, and back from the deepest of `terms`.
   * @param terms exits in ascending order; an exit of weight 0 is measured but gives no gradient
   * @param gradients receives Σ scale · (weight · loss + distillWeight · KL), added to what is there
   */
  async run(
    parameters: Parameters,
    batch: Batch,
    terms: readonly ExitTerm[],
    gradients: Gradients,
    { teacher, scale = 1 }: StepOptions = {},
  ): Promise<ExitLoss[]> {
    const size = this.#a.hidden_size;
    const targets = targetsOf(batch);
    const deepest = terms.at(-1)?.depth ?? 0;
    const distilled = terms.some(({ distillWeight = 0 }) => distillWeight !== 0);
    if (distilled && teacher === undefined)
      throw new Error("a term has a distillation weight, but there is no teacher");
    const pass = this.#begin(batch);

    const saved = new Map<number, Outputs>();
    const exitRows = new Map<number, Float32Array>();
    let hidden = embedTokens(parameter(parameters, "embed"), size, batch);
    let common = hidden;
    for (let layer = 0; layer < deepest; layer++) {
      if (layer === this.#lowest) common = hidden;
      const outputs = await this.#forward(parameters, layer, hidden, pass, layer >= this.#lowest);
      if (layer >= this.#lowest) saved.set(layer, { ...outputs, [TRAINING_LAYER.hidden]: tensor(hidden, pass.shape) });
      hidden = floats(outputs, TRAINING_LAYER.hiddenOut);
      if (terms.some(({ depth }) => depth === layer + 1)) exitRows.set(layer + 1, gatherRows(hidden, size, targets));
    }

    let teacherRows: { rows: Float32Array; parameters: Parameters } | undefined;
    if (distilled && teacher !== undefined) {
      const own = teacher === "self";
      const source = own ? parameters : teacher;
      const shared = own ? deepest : Math.min(this.#lowest, deepest, sharedLayers(parameters, source));
      // Between the layers that both have and the lowest that trains nothing was kept.
      const [from, input] =
        shared === deepest
          ? [shared, hidden]
          : shared === this.#lowest && shared > 0
            ? [shared, common]
            : [0, embedTokens(parameter(source, "embed"), size, batch)];
      const top = await this.#forwardOnly(source, input, from, this.#a.layers, pass);
      teacherRows = { rows: gatherRows(top, size, targets), parameters: source };
    }
    const scaled = terms.map(({ depth, weight, distillWeight = 0 }) => ({
      depth,
      weight: weight * scale,
      distillWeight: distillWeight * scale,
    }));
    const { losses, rowGradients } = await this.#head.run(
      parameters,
      scaled,
      exitRows,
      targets,
      gradients,
      teacherRows,
    );

    let dHidden: Float32Array = new Float32Array(hidden.length);
    for (let layer = deepest - 1; layer >= this.#lowest; layer--) {
      const rows = rowGradients.get(layer + 1);
      if (rows) scatterRows(dHidden, size, targets, rows);
      dHidden = await this.#backward(parameters, layer, dHidden, saved.get(layer) ?? {}, pass, gradients);
      saved.delete(layer);
    }
    if (!this.#frozen.embeddings) {
      const sum = gradients.get("embed") ?? new Float32Array(parameter(parameters, "embed").length);
      addToEmbedding(sum, size, batch, dHidden);
      gradients.set("embed", sum);
    }
    return losses;
  }

  /**
   * Measures a batch at `depths` without gradients.
   * @param depths ascending
   */
  async evaluate(parameters: Parameters, batch: Batch, depths: readonly number[]): Promise<ExitScore[]> {
    const { layers } = this.#a;
    const targets = targetsOf(batch);
    const exitRows = await this.exitRows(parameters, batch, [...new Set([...depths, layers])]);
    const measured = await this.#head.measure(parameters, exitRows, targets);
    const full = measured.get(layers)?.predicted;
    return depths.map((depth) => {
      const { crossEntropy, predicted } = measured.get(depth) ?? { crossEntropy: [], predicted: new Int32Array() };
      let [loss, correct, agreed] = [0, 0, 0];
      for (const value of crossEntropy) loss += value;
      for (const [i, token] of predicted.entries()) {
        if (token === targets.labels[i]) correct++;
        if (token === full?.[i]) agreed++;
      }
      return { depth, targets: targets.labels.length, loss, correct, agreed };
    });
  }

  /**
   * The residual stream at `depths` where something is predicted, by depth: float32 [targets, H].
   * @param depths ascending
   */
  async exitRows(parameters: Parameters, batch: Batch, depths: readonly number[]): Promise<Map<number, Float32Array>> {
    const size = this.#a.hidden_size;
    const targets = targetsOf(batch);
    const pass = this.#begin(batch);
    const rows = new Map<number, Float32Array>();
    let hidden = embedTokens(parameter(parameters, "embed"), size, batch);
    let from = 0;
    for (const depth of depths) {
      hidden = await this.#forwardOnly(parameters, hidden, from, depth, pass);
      rows.set(depth, gatherRows(hidden, size, targets));
      from = depth;
    }
    return rows;
  }

  /** Frees the native sessions. */
  close(): Promise<void> {
    return this.#sessions.close();
  }

  async #forwardOnly(parameters: Parameters, input: Float32Array, from: number, to: number, pass: Pass) {
    let hidden = input;
    for (let layer = from; layer < to; layer++) {
      hidden = floats(await this.#forward(parameters, layer, hidden, pass, false), TRAINING_LAYER.hiddenOut);
    }
    return hidden;
  }

  async #forward(parameters: Parameters, layer: number, hidden: Float32Array, pass: Pass, keep: boolean) {
    const { forward } = await this.#sessions.layer(this.#learns(parameters, layer, keep));
    const feeds = {
      ...pass.shared,
      ...this.#layerFeeds(parameters, layer),
      [TRAINING_LAYER.hidden]: tensor(hidden, pass.shape),
    };
    return forward.run(pick(feeds, forward), keep ? forward.outputNames : [TRAINING_LAYER.hiddenOut]);
  }

  async #backward(
    parameters: Parameters,
    layer: number,
    dHidden: Float32Array,
    saved: Outputs,
    pass: Pass,
    gradients: Gradients,
  ): Promise<Float32Array> {
    const learns = this.#learns(parameters, layer, true);
    const { backward } = await this.#sessions.layer(learns);
    const feeds = { ...pass.shared, ...this.#layerFeeds(parameters, layer), ...saved } as Feeds;
    feeds[gradientOf(TRAINING_LAYER.hiddenOut)] = tensor(dHidden, pass.shape);
    const outputs = await backward.run(pick(feeds, backward));
    for (const name of learntTensors(learns)) {
      accumulate(gradients, `layers.${layer}.${name}`, floats(outputs, gradientOf(name)));
    }
    return floats(outputs, gradientOf(TRAINING_LAYER.hidden));
  }

  #begin({ rows, length }: Batch): Pass {
    const { cos, sin, width } = this.#rope;
    const group = this.#a.heads / this.#a.kv_heads;
    return {
      shape: [rows, length, this.#a.hidden_size],
      shared: {
        [TRAINING_LAYER.cos]: tensor(cos.subarray(0, length * width), [length, width]),
        [TRAINING_LAYER.sin]: tensor(sin.subarray(0, length * width), [length, width]),
        [TRAINING_LAYER.mask]: tensor(causalMask(group, length), [group * length, length]),
      },
    };
  }

  /** Which graphs run a layer: those for adapters where the parameters hold some. */
  #learns(parameters: Parameters, layer: number, keep: boolean): LayerLearns {
    const adapters = LAYER_MATRICES.filter((matrix) => parameters.has(`layers.${layer}.${adapterNames(matrix).a}`));
    if (adapters.length > 0) return { adapters };
    // Without gradients either graph does; the one that is there already saves making another.
    return keep && this.#frozen.layers.has(layer) ? "nothing" : "matrices";
  }

  #layerFeeds(parameters: Parameters, layer: number): Feeds {
    const feeds: Feeds = {};
    for (const name of [...LAYER_TENSORS, ...ADAPTER_TENSORS]) {
      const values = parameters.get(`layers.${layer}.${name}`);
      if (values) feeds[name] = tensor(values, layerTensorShape(this.#a, name, values.length));
    }
    return feeds;
  }
}

/** Layers from the bottom, the embedding below them included, that two models have as the very same arrays. */
function sharedLayers(a: Parameters, b: Parameters): number {
  if (a.get("embed") !== b.get("embed")) return 0;
  const same = (layer: number) =>
    [...LAYER_TENSORS, ...ADAPTER_TENSORS].every(
      (name) => a.get(`layers.${layer}.${name}`) === b.get(`layers.${layer}.${name}`),
    );
  let layer = 0;
  while (b.has(`layers.${layer}.${LAYER_TENSORS[0]}`) && same(layer)) layer++;
  return layer;
}
