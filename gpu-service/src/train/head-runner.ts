import type { Architecture } from "@fathom/shared";
import ort from "onnxruntime-node";
import { gradientOf, TRAINING_HEAD } from "../graph/llama-training.ts";
import type { Targets } from "./batch.ts";
import type { Frozen } from "./frozen.ts";
import { accumulate, type Gradients, headName, type Parameters, parameter } from "./parameters.ts";
import { type Feeds, floats, type Outputs, tensor } from "./tensors.ts";
import type { TrainingSessions } from "./training-sessions.ts";

/** Rows of logits at a time, over all exits: one such chunk of a 49K vocabulary takes 200 MB, as much again its gradient. */
const HEAD_CHUNK = 1024;

/** An exit to run in a step, with the weights of its losses in the step's loss. */
export interface ExitTerm {
  depth: number;
  /** Of the cross-entropy to the labels. */
  weight: number;
  /** Of KL(teacher ‖ exit). Default 0. */
  distillWeight?: number;
}

export interface ExitLoss {
  depth: number;
  /** Mean cross-entropy over the batch's targets, nats. */
  loss: number;
  /** Share of targets whose most probable token is the label. */
  accuracy: number;
  /** Mean KL(teacher ‖ exit), nats, where there is a teacher. */
  kl?: number;
}

/** Rows of the teacher's residual stream at its full depth, and the parameters that read them. */
export interface TeacherRows {
  rows: Float32Array;
  parameters: Parameters;
}

/** Runs rows of the residual stream through the shared norm and head. */
export class HeadRunner {
  readonly #a: Architecture;
  readonly #sessions: TrainingSessions;
  readonly #gradients: ("rows" | "norm" | "head")[];

  constructor(a: Architecture, sessions: TrainingSessions, frozen: Frozen) {
    this.#a = a;
    this.#sessions = sessions;
    this.#gradients = ["rows"];
    if (!frozen.norm) this.#gradients.push("norm");
    if (!frozen.head) this.#gradients.push("head");
  }

  /**
   * Losses of every term, and the gradient of Σ weight · loss + distillWeight · KL: of norm and head added to `gradients`,
   * of the rows returned by depth.
   * @param exitRows by depth, float32 [targets, H]
   */
  async run(
    parameters: Parameters,
    terms: readonly ExitTerm[],
    exitRows: ReadonlyMap<number, Float32Array>,
    targets: Targets,
    gradients: Gradients,
    teacher: TeacherRows | undefined,
  ): Promise<{ losses: ExitLoss[]; rowGradients: Map<number, Float32Array> }> {
    const { hidden_size: size, vocab_size: vocab } = this.#a;
    const count = targets.labels.length;
    const session = await this.#sessions.head({ gradients: this.#gradients, teacher: teacher !== undefined });
    const weights = headWeights(this.#a, parameters, false);
    const teacherWeights = teacher ? headWeights(this.#a, teacher.parameters, true) : {};
    const head = headName(this.#a);
    const sums = terms.map(({ depth }) => ({ depth, loss: 0, correct: 0, kl: 0 }));
    const rowGradients = new Map(terms.map(({ depth }) => [depth, new Float32Array(count * size)]));

    const chunk = Math.max(1, Math.floor(HEAD_CHUNK / terms.length));
    for (let from = 0; from < count; from += chunk) {
      const rows = Math.min(chunk, count - from);
      const feeds: Feeds = {
        ...weights,
        ...stackedRows(terms, exitRows, targets, from, rows, size),
        [TRAINING_HEAD.lossWeight]: perRow(terms, rows, ({ weight }) => weight / count),
        ...(teacher && {
          ...teacherWeights,
          [TRAINING_HEAD.teacherRows]: tensor(teacher.rows.subarray(from * size, (from + rows) * size), [rows, size]),
          [TRAINING_HEAD.distillWeight]: perRow(terms, rows, ({ distillWeight = 0 }) => distillWeight / count),
        }),
      };
      const outputs = await session.run(feeds);
      const crossEntropy = floats(outputs, TRAINING_HEAD.crossEntropy);
      const kl = teacher ? floats(outputs, TRAINING_HEAD.kl) : undefined;
      const predicted = predictions(outputs);
      const dRows = floats(outputs, gradientOf(TRAINING_HEAD.rows));
      for (const [e, sum] of sums.entries()) {
        for (let i = 0; i < rows; i++) {
          sum.loss += crossEntropy[e * rows + i] as number;
          sum.kl += kl?.[e * rows + i] ?? 0;
          if (Number(predicted[e * rows + i]) === targets.labels[from + i]) sum.correct++;
        }
        rowGradients.get(sum.depth)?.set(dRows.subarray(e * rows * size, (e + 1) * rows * size), from * size);
      }
      if (this.#gradients.includes("norm"))
        accumulate(gradients, "norm", floats(outputs, gradientOf(TRAINING_HEAD.norm)));
      if (this.#gradients.includes("head")) {
        const dHead = floats(outputs, gradientOf(TRAINING_HEAD.head));
        if (dHead.length !== vocab * size) throw new RangeError("the head's gradient has the wrong size");
        accumulate(gradients, head, dHead);
      }
    }
    const losses = sums.map(({ depth, loss, correct, kl }) => ({
      depth,
      loss: loss / count,
      accuracy: correct / count,
      ...(teacher && { kl: kl / count }),
    }));
    return { losses, rowGradients };
  }

  /**
   * Measures without gradients.
   * @returns by depth the cross-entropy and the most probable token of every target
   */
  async measure(
    parameters: Parameters,
    exitRows: ReadonlyMap<number, Float32Array>,
    targets: Targets,
  ): Promise<Map<number, { crossEntropy: Float32Array; predicted: Int32Array }>> {
    const size = this.#a.hidden_size;
    const count = targets.labels.length;
    const session = await this.#sessions.head({ gradients: [], teacher: false });
    const weights = headWeights(this.#a, parameters, false);
    const measured = new Map<number, { crossEntropy: Float32Array; predicted: Int32Array }>();
    for (const depth of exitRows.keys()) {
      const result = { crossEntropy: new Float32Array(count), predicted: new Int32Array(count) };
      for (let from = 0; from < count; from += HEAD_CHUNK) {
        const rows = Math.min(HEAD_CHUNK, count - from);
        const outputs = await session.run({
          ...weights,
          ...stackedRows([{ depth }], exitRows, targets, from, rows, size),
        });
        result.crossEntropy.set(floats(outputs, TRAINING_HEAD.crossEntropy), from);
        result.predicted.set(Int32Array.from(predictions(outputs), Number), from);
      }
      measured.set(depth, result);
    }
    return measured;
  }
}

function headWeights(a: Architecture, parameters: Parameters, teacher: boolean): Feeds {
  const norm = tensor(parameter(parameters, "norm"), [a.hidden_size]);
  const head = tensor(parameter(parameters, headName(a)), [a.vocab_size, a.hidden_size]);
  return teacher
    ? { [TRAINING_HEAD.teacherNorm]: norm, [TRAINING_HEAD.teacherHead]: head }
    : { [TRAINING_HEAD.norm]: norm, [TRAINING_HEAD.head]: head };
}

/** `rows` targets from `from` on, exit after exit, with their labels. */
function stackedRows(
  terms: readonly { depth: number }[],
  exitRows: ReadonlyMap<number, Float32Array>,
  targets: Targets,
  from: number,
  rows: number,
  size: number,
): Feeds {
  const stacked = new Float32Array(terms.length * rows * size);
  const labels = new BigInt64Array(terms.length * rows);
  for (const [e, { depth }] of terms.entries()) {
    const values = exitRows.get(depth);
    if (!values) throw new Error(`there are no rows of exit ${depth}`);
    stacked.set(values.subarray(from * size, (from + rows) * size), e * rows * size);
    for (let i = 0; i < rows; i++) labels[e * rows + i] = BigInt(targets.labels[from + i] ?? 0);
  }
  return {
    [TRAINING_HEAD.rows]: tensor(stacked, [terms.length * rows, size]),
    [TRAINING_HEAD.labels]: new ort.Tensor("int64", labels, [terms.length * rows, 1]),
  };
}

function perRow(terms: readonly ExitTerm[], rows: number, weight: (term: ExitTerm) => number): ort.Tensor {
  const values = new Float32Array(terms.length * rows);
  for (const [e, term] of terms.entries()) values.fill(weight(term), e * rows, (e + 1) * rows);
  return tensor(values, [terms.length * rows, 1]);
}

function predictions(outputs: Outputs): BigInt64Array {
  const data = outputs[TRAINING_HEAD.predicted]?.data;
  if (!(data instanceof BigInt64Array)) throw new TypeError("the head gave no predictions");
  return data;
}
