import { type Architecture, LAYER_MATRICES, type LayerMatrix, layerMatrixShape } from "@fathom/shared";
import { differentiate } from "./gradients/differentiate.ts";
import { type Partition, partition } from "./gradients/partition.ts";
import { GraphBuilder, MICROSOFT } from "./graph-builder.ts";
import { type Attend, decoderLayer, type LlamaWeights, ROPE_INPUTS, rmsNorm, rotate, settle } from "./llama-layer.ts";
import type { Graph } from "./onnx.ts";

/** Tensors of one layer, without the layer's number; the training graphs take them as inputs, so one graph serves all layers. */
export const LAYER_TENSORS = ["attn_norm", "attn.qkv", "attn.o", "mlp_norm", "mlp.gate_up", "mlp.down"] as const;
export type LayerTensor = (typeof LAYER_TENSORS)[number];

/** What a layer's graphs give gradients of: its matrices and norms, or low-rank adapters of these matrices. */
export type LayerLearns = "nothing" | "matrices" | { adapters: readonly LayerMatrix[] };

/** Low-rank adapters of a matrix `name`: W + 2·B·A with A [r, K] and B [N, r] (Hu et al. 2021). */
export const adapterNames = (name: string) => ({ a: `${name}.lora_a`, b: `${name}.lora_b` });

/** α / r of the paper with α = 2r, the usual choice: the update is scaled alike whatever the rank. */
export const ADAPTER_SCALE = 2;

/** The adapters' names in a layer's graphs. */
export const ADAPTER_TENSORS = LAYER_MATRICES.flatMap((matrix) => Object.values(adapterNames(matrix)));

/** Name of the gradient of a graph input. */
export const gradientOf = (name: string) => `d ${name}`;

/**
 * Names of a training layer's values. `hidden`, `hidden_out` and their gradients are float32 [B, S, H], padded on the right;
 * `cos`, `sin` [S, D/2]; `mask` [G·S, S] causal.
 */
export const TRAINING_LAYER = { ...ROPE_INPUTS, hidden: "hidden", hiddenOut: "hidden_out", mask: "mask" } as const;

/**
 * Names of the training head's values. R rows of the residual stream, taken at any exits, go through the shared norm and head.
 *
 * inputs: `rows` float32 [R, H]; `norm` [H]; `head` [V, H]; `labels` int64 [R, 1]; `loss_weight` float32 [R, 1], the weight of
 * each row's cross-entropy in the loss; with a teacher also `teacher_rows` [T, H], `teacher_norm`, `teacher_head` and
 * `distill_weight` [R, 1], the weight of KL(teacher ‖ student). R is a multiple of T: row r learns from teacher row r mod T.
 * outputs: `cross_entropy` [R, 1] and `predicted` int64 [R, 1]; with a teacher `kl` [R, 1]; the gradients asked for.
 */
export const TRAINING_HEAD = {
  rows: "rows",
  norm: "norm",
  head: "head",
  labels: "labels",
  lossWeight: "loss_weight",
  teacherRows: "teacher_rows",
  teacherNorm: "teacher_norm",
  teacherHead: "teacher_head",
  distillWeight: "distill_weight",
  crossEntropy: "cross_entropy",
  predicted: "predicted",
  kl: "kl",
} as const;

/**
 * One decoder layer over a padded batch, forward and backward, with its weights as inputs.
 * @param learns with nothing to learn a layer only passes the gradient down; adapters are inputs of their own, and the
 * matrices beneath them get no gradient
 */
export function buildTrainingLayer(a: Architecture, learns: LayerLearns): Partition {
  const b = new GraphBuilder("layer");
  const adapted = adaptedMatrices(learns);
  const hidden = declareInputs(b, a);
  for (const matrix of adapted) {
    const [n, k] = layerMatrixShape(a, matrix);
    b.input(adapterNames(matrix).a, "float32", ["rank", k]);
    b.input(adapterNames(matrix).b, "float32", [n, "rank"]);
  }

  const residual = decoderLayer(
    b,
    a,
    inputWeights(adapted),
    0,
    { stream: hidden, delta: undefined },
    attendWithinBatch(a),
  );
  const out = settle(b, residual, TRAINING_LAYER.hiddenOut);
  b.output(out, "float32", ["B", "S", a.hidden_size]);
  const forwardNodes = b.graph().nodes.length;

  const seed = b.input(gradientOf(out), "float32", ["B", "S", a.hidden_size]);
  emitGradients(b, new Map([[out, seed]]), [hidden, ...learntTensors(learns)]);
  return partition(b.graph(), forwardNodes);
}

/** Name of the Gram matrix of a matrix's input. */
export const gramOf = (name: string) => `gram ${name}`;

/**
 * One decoder layer over a batch without padding, with its weights as inputs, that also says what its matrices are multiplied
 * with: outputs are `hidden_out` and, per matrix, the Gram matrix xᵀ·x [K, K] of its input over all positions.
 */
export function buildGramLayer(a: Architecture): Graph {
  const b = new GraphBuilder("layer with Gram matrices");
  const hidden = declareInputs(b, a);
  const weights = inputWeights([], (name, rows) => {
    const gram = { attributes: { transA: 1 }, domain: MICROSOFT, as: gramOf(name) };
    b.output(b.node("FusedMatMul", [rows, rows], gram), "float32");
  });
  const residual = decoderLayer(b, a, weights, 0, { stream: hidden, delta: undefined }, attendWithinBatch(a));
  b.output(settle(b, residual, TRAINING_LAYER.hiddenOut), "float32", ["B", "S", a.hidden_size]);
  return b.graph();
}

/** Declares what every training layer takes. @returns the residual stream */
function declareInputs(b: GraphBuilder, a: Architecture): string {
  const hidden = b.input(TRAINING_LAYER.hidden, "float32", ["B", "S", a.hidden_size]);
  b.input(TRAINING_LAYER.cos, "float32", ["S", a.head_dim / 2]);
  b.input(TRAINING_LAYER.sin, "float32", ["S", a.head_dim / 2]);
  b.input(TRAINING_LAYER.mask, "float32", ["GS", "S"]);
  b.input("attn_norm", "float32", [a.hidden_size]);
  b.input("mlp_norm", "float32", [a.hidden_size]);
  for (const matrix of LAYER_MATRICES) b.input(matrix, "float32", layerMatrixShape(a, matrix));
  return hidden;
}

/** The tensors of a layer that get a gradient, without the layer's number. */
export function learntTensors(learns: LayerLearns): readonly string[] {
  if (learns === "nothing") return [];
  if (learns === "matrices") return LAYER_TENSORS;
  return learns.adapters.flatMap((matrix) => Object.values(adapterNames(matrix)));
}

function adaptedMatrices(learns: LayerLearns): readonly LayerMatrix[] {
  return typeof learns === "string" ? [] : learns.adapters;
}

export interface TrainingHeadOptions {
  /** The inputs that get a gradient; none makes a graph that only measures, without `loss_weight`. */
  gradients: readonly ("rows" | "norm" | "head")[];
  teacher: boolean;
}

/** Final norm, head, losses and their gradients in one graph: the logits live only inside it. */
export function buildTrainingHead(a: Architecture, options: TrainingHeadOptions): Graph {
  const b = new GraphBuilder("training head");
  const names = TRAINING_HEAD;
  b.input(names.rows, "float32", ["R", a.hidden_size]);
  b.input(names.norm, "float32", [a.hidden_size]);
  b.input(names.head, "float32", [a.vocab_size, a.hidden_size]);
  b.input(names.labels, "int64", ["R", 1]);
  const logits = headLogits(b, a, names.rows, names.norm, names.head);
  const logProbabilities = b.node("LogSoftmax", [logits], { attributes: { axis: -1 } });
  const picked = b.node("GatherElements", [logProbabilities, names.labels], { attributes: { axis: 1 } });
  b.output(b.node("Neg", [picked], { as: names.crossEntropy }), "float32", ["R", 1]);
  b.output(b.node("ArgMax", [logits], { attributes: { axis: 1 }, as: names.predicted }), "int64", ["R", 1]);
  const teacher = options.teacher ? emitTeacher(b, a, logProbabilities) : undefined;
  if (options.gradients.length === 0) return b.graph();

  // ∂(w·CE)/∂logits = w·(p − onehot); ∂(v·KL(q ‖ p))/∂logits = v·(p − q).
  b.input(names.lossWeight, "float32", ["R", 1]);
  const probabilities = b.node("Exp", [logProbabilities]);
  const weight = teacher ? b.node("Add", [names.lossWeight, names.distillWeight]) : names.lossWeight;
  const weighted = b.node("Mul", [probabilities, weight]);
  const towardsLabel = b.node("ScatterElements", [weighted, names.labels, b.node("Neg", [names.lossWeight])], {
    attributes: { axis: 1, reduction: "add" },
  });
  const seed = teacher ? b.node("Sub", [towardsLabel, teacher.pull]) : towardsLabel;
  emitGradients(b, new Map([[logits, seed]]), options.gradients);
  return b.graph();
}

/** Emits `kl`; `pull` [R, V] is the teacher's probabilities times the rows' distillation weights. */
function emitTeacher(b: GraphBuilder, a: Architecture, logProbabilities: string): { pull: string } {
  const names = TRAINING_HEAD;
  b.input(names.teacherRows, "float32", ["T", a.hidden_size]);
  b.input(names.teacherNorm, "float32", [a.hidden_size]);
  b.input(names.teacherHead, "float32", [a.vocab_size, a.hidden_size]);
  b.input(names.distillWeight, "float32", ["R", 1]);
  const logits = headLogits(b, a, names.teacherRows, names.teacherNorm, names.teacherHead);
  const log = b.node("LogSoftmax", [logits], { attributes: { axis: -1 } });
  const probabilities = b.node("Exp", [log]);
  // [R, x] as [R/T, T, x], so that the teacher's rows broadcast over the exits.
  const count = b.node("Shape", [log], { attributes: { end: 1 } });
  const perExit = (value: string) => {
    const shape = b.node("Concat", [b.int64s([-1]), count, lastDim(b, value)], { attributes: { axis: 0 } });
    return b.node("Reshape", [value, shape]);
  };
  const flat = (value: string, as?: string) => {
    const shape = b.node("Concat", [b.int64s([-1]), lastDim(b, value)], { attributes: { axis: 0 } });
    return b.node("Reshape", [value, shape], as === undefined ? {} : { as });
  };
  const terms = b.node("Mul", [probabilities, b.node("Sub", [log, perExit(logProbabilities)])]);
  b.output(flat(b.node("ReduceSum", [terms, b.int64s([-1])]), names.kl), "float32", ["R", 1]);
  return { pull: flat(b.node("Mul", [probabilities, perExit(names.distillWeight)])) };
}

function headLogits(b: GraphBuilder, a: Architecture, rows: string, norm: string, head: string): string {
  const weights: LlamaWeights = { linear: (builder, name, x) => matmul(builder, x, name), norm: (_, name) => name };
  const { normed } = rmsNorm(b, a, weights, norm, { stream: rows, delta: undefined });
  return weights.linear(b, head, normed);
}

/** Appends the gradients of `wrt` and makes them outputs named by `gradientOf`. */
function emitGradients(b: GraphBuilder, seeds: ReadonlyMap<string, string>, wrt: readonly string[]): void {
  for (const [name, gradient] of differentiate(b, seeds, wrt)) {
    b.output(b.node("Identity", [gradient], { as: gradientOf(name) }), "float32");
  }
}

/**
 * Weights that come in through graph inputs named without the layer's number.
 * @param adapted matrices with adapters
 * @param onInput is told the rows [R, K] that a matrix is multiplied with
 */
function inputWeights(adapted: readonly string[], onInput?: (name: string, rows: string) => void): LlamaWeights {
  const local = (name: string) => name.replace(/^layers\.\d+\./, "");
  return {
    linear: (b, name, x) => {
      // Two-dimensional, so that the weight's gradient is one matrix product over all positions.
      const rows = b.node("Reshape", [
        x,
        b.node("Concat", [b.int64s([-1]), lastDim(b, x)], { attributes: { axis: 0 } }),
      ]);
      onInput?.(local(name), rows);
      const own = matmul(b, rows, local(name));
      const flat = adapted.includes(local(name)) ? b.node("Add", [own, adapterProduct(b, rows, local(name))]) : own;
      const leading = b.node("Shape", [x], { attributes: { end: -1 } });
      return b.node("Reshape", [flat, b.node("Concat", [leading, b.int64s([-1])], { attributes: { axis: 0 } })]);
    },
    norm: (_, name) => local(name),
  };
}

function lastDim(b: GraphBuilder, value: string): string {
  return b.node("Shape", [value], { attributes: { start: -1 } });
}

function matmul(b: GraphBuilder, x: string, weight: string): string {
  return b.node("FusedMatMul", [x, weight], { attributes: { transB: 1 }, domain: MICROSOFT });
}

/** 2 · x · Aᵀ · Bᵀ, never forming the matrix B · A. */
function adapterProduct(b: GraphBuilder, x: string, matrix: string): string {
  const names = adapterNames(matrix);
  const attributes = { transB: 1, alpha: { float: ADAPTER_SCALE } };
  return b.node("FusedMatMul", [matmul(b, x, names.a), names.b], { attributes, domain: MICROSOFT });
}

/** Causal attention of every sequence of a batch to itself; padding on the right needs no mask of its own. */
function attendWithinBatch(a: Architecture): Attend {
  const { heads, kv_heads: kvHeads, head_dim: headDim } = a;
  const group = heads / kvHeads;
  const alpha = { float: 1 / Math.sqrt(headDim) };
  return (b, _layer, qkv) => {
    const { q, k, v } = rotate(b, a, qkv);
    const perHead = (x: string) => {
      const split = b.node("Reshape", [x, b.int64s([0, 0, kvHeads, headDim])]);
      return b.node("Transpose", [split], { attributes: { perm: [0, 2, 1, 3] } });
    };
    // Query heads of one K/V head become rows of one product: [B, kv, G·S, D].
    const grouped = b.node("Reshape", [q, b.int64s([0, 0, kvHeads, group, headDim])]);
    const byHead = b.node("Transpose", [grouped], { attributes: { perm: [0, 2, 3, 1, 4] } });
    const query = b.node("Reshape", [byHead, b.int64s([0, 0, -1, headDim])]);

    const scores = b.node("FusedMatMul", [query, perHead(k)], { attributes: { transB: 1, alpha }, domain: MICROSOFT });
    const masked = b.node("Add", [scores, TRAINING_LAYER.mask]);
    const weights = b.node("Softmax", [masked], { attributes: { axis: -1 } });
    const context = b.node("FusedMatMul", [weights, perHead(v)], { domain: MICROSOFT });

    const ungrouped = b.node("Reshape", [context, b.int64s([0, 0, group, -1, headDim])]);
    const byRow = b.node("Transpose", [ungrouped], { attributes: { perm: [0, 3, 1, 2, 4] } });
    return b.node("Reshape", [byRow, b.int64s([0, 0, heads * headDim])]);
  };
}
