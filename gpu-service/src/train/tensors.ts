import { type Architecture, LAYER_MATRICES, layerMatrixShape } from "@fathom/shared";
import ort from "onnxruntime-node";
import { adapterNames } from "../graph/llama-training.ts";
import type { Batch, Targets } from "./batch.ts";

export type Feeds = Record<string, ort.Tensor>;
export type Outputs = ort.InferenceSession.OnnxValueMapType;

/** A float32 tensor over `values`, without a copy. */
export function tensor(values: Float32Array, shape: readonly number[]): ort.Tensor {
  return new ort.Tensor("float32", values, shape);
}

/** The feeds that a session takes. */
export function pick(feeds: Feeds, session: ort.InferenceSession): Feeds {
  return Object.fromEntries(session.inputNames.map((name) => [name, feeds[name]])) as Feeds;
}

/** A float32 output by name. @throws TypeError when there is none. */
export function floats(outputs: Outputs, name: string): Float32Array {
  const data = outputs[name]?.data;
  if (!(data instanceof Float32Array)) throw new TypeError(`the graph gave no float32 output '${name}'`);
  return data;
}

/** Shape of a layer's norm, matrix or adapter of `values` values, named without the layer's number. */
export function layerTensorShape(a: Architecture, name: string, values: number): number[] {
  for (const matrix of LAYER_MATRICES) {
    const [n, k] = layerMatrixShape(a, matrix);
    const adapters = adapterNames(matrix);
    if (name === matrix || name === adapters.a) return [values / k, k];
    if (name === adapters.b) return [n, values / n];
  }
  return [values];
}

/** Rows of the embedding `table` [V, size] for a batch's tokens: float32 [rows · length, size]. */
export function embedTokens(table: Float32Array, size: number, { tokens }: Batch): Float32Array {
  const hidden = new Float32Array(tokens.length * size);
  for (const [i, token] of tokens.entries()) hidden.set(table.subarray(token * size, (token + 1) * size), i * size);
  return hidden;
}

/** Adds every token's row of `dHidden` to its row of `sum` [V, size]. */
export function addToEmbedding(sum: Float32Array, size: number, { tokens }: Batch, dHidden: Float32Array): void {
  for (const [i, token] of tokens.entries()) addRow(sum, token * size, dHidden, i * size, size);
}

/** The rows of `hidden` at the positions that predict something: float32 [targets, size]. */
export function gatherRows(hidden: Float32Array, size: number, { positions }: Targets): Float32Array {
  const rows = new Float32Array(positions.length * size);
  for (const [i, position] of positions.entries())
    rows.set(hidden.subarray(position * size, (position + 1) * size), i * size);
  return rows;
}

/** Adds `rows` to `hidden` at those positions. */
export function scatterRows(hidden: Float32Array, size: number, { positions }: Targets, rows: Float32Array): void {
  for (const [i, position] of positions.entries()) addRow(hidden, position * size, rows, i * size, size);
}

function addRow(sum: Float32Array, at: number, from: Float32Array, start: number, size: number): void {
  for (let j = 0; j < size; j++) sum[at + j] = (sum[at + j] as number) + (from[start + j] as number);
}
