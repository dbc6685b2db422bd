import { type GraphBuilder, MICROSOFT } from "../graph-builder.ts";
import type { Attribute, GraphNode } from "../onnx.ts";

/** What a rule sees: the node, and the gradients of the loss with respect to its outputs (undefined where none flows). */
export interface RuleContext {
  b: GraphBuilder;
  node: GraphNode;
  gradients: readonly (string | undefined)[];
  /** Whether the input at this place needs a gradient; rules skip the work for those that do not. */
  wanted: (input: number) => boolean;
}

/** Emits the gradients of a node's inputs, in their order; undefined for inputs that take none. */
export type Rule = (context: RuleContext) => (string | undefined)[];

/**
 * Vector–Jacobian products by operator. Operands of products and sums have equal shapes (no broadcasting towards an input
 * that needs a gradient), as the LLaMA graphs do; a node that breaks this fails shape inference when the session loads.
 */
export const RULES: Readonly<Record<string, Rule>> = {
  Identity: ({ gradients: [g] }) => [g],
  Add: ({ gradients: [g], wanted }) => [0, 1].map((i) => (wanted(i) ? g : undefined)),
  Mul: ({ b, node, gradients: [g = ""], wanted }) => {
    const [x = "", y = ""] = node.inputs;
    return [wanted(0) ? b.node("Mul", [g, y]) : undefined, wanted(1) ? b.node("Mul", [g, x]) : undefined];
  },
  Reshape: ({ b, node, gradients: [g = ""] }) => [b.node("Reshape", [g, b.node("Shape", [input(node, 0)])])],
  Transpose: ({ b, node, gradients: [g = ""] }) => {
    const perm = ints(node, "perm");
    const inverse = perm.map((_, axis) => perm.indexOf(axis));
    return [b.node("Transpose", [g], { attributes: { perm: inverse } })];
  },
  Split: ({ b, node, gradients }) => {
    const parts = gradients.map((g, i) => g ?? zerosLike(b, node.outputs[i] ?? ""));
    return [b.node("Concat", parts, { attributes: { axis: int(node, "axis", 0) } })];
  },
  Softmax: ({ b, node, gradients: [g = ""] }) => {
    const y = node.outputs[0] ?? "";
    const gy = b.node("Mul", [g, y]);
    const sum = b.node("ReduceSum", [gy, b.int64s([-1])]);
    return [b.node("Sub", [gy, b.node("Mul", [y, sum])])];
  },
  FusedMatMul: fusedMatMul,
  QuickGelu: ({ b, node, gradients: [g = ""] }) => {
    // y = x·s with s = σ(αx): dy/dx = s + α·y·(1 − s).
    const [y = ""] = node.outputs;
    const alpha = b.float32(float(node, "alpha", 1.702));
    const s = b.node("Sigmoid", [b.node("Mul", [input(node, 0), alpha])]);
    const slope = b.node("Mul", [b.node("Mul", [y, alpha]), b.node("Sub", [b.float32(1), s])]);
    return [b.node("Mul", [g, b.node("Add", [s, slope])])];
  },
  RotaryEmbedding: ({ b, node, gradients: [g = ""] }) => {
    // A rotation's transpose is the rotation by the opposite angle.
    const [, position = "", cos = "", sin = ""] = node.inputs;
    const inverse = [g, position, cos, b.node("Neg", [sin])];
    return [b.node("RotaryEmbedding", inverse, { attributes: node.attributes, domain: MICROSOFT })];
  },
  SimplifiedLayerNormalization: ({ b, node, gradients: [g = ""], wanted }) => {
    const [x = "", weight = ""] = node.inputs;
    const { dx, dWeight } = rmsNorm(b, x, weight, g, float(node, "epsilon", 1e-5), wanted(1));
    return [dx, dWeight];
  },
  SkipSimplifiedLayerNormalization: ({ b, node, gradients: [g, , , sumGradient], wanted }) => {
    const [, , weight = ""] = node.inputs;
    const sum = node.outputs[3] ?? "";
    if (g === undefined) return [sumGradient, sumGradient, undefined];
    const { dx, dWeight } = rmsNorm(b, sum, weight, g, float(node, "epsilon", 1e-5), wanted(2));
    const total = sumGradient === undefined ? dx : b.node("Add", [dx, sumGradient]);
    return [total, total, dWeight];
  },
};

/** y = α · op(A) · op(B), both operands of the same rank. */
function fusedMatMul({ b, node, gradients: [g = ""], wanted }: RuleContext): (string | undefined)[] {
  const [x = "", y = ""] = node.inputs;
  if (int(node, "transA", 0) || int(node, "transBatchA", 0) || int(node, "transBatchB", 0)) {
    throw new Error("no gradient for FusedMatMul with transA or transposed batches");
  }
  const alpha = { float: float(node, "alpha", 1) };
  const product = (left: string, right: string, transA: number, transB: number) =>
    b.node("FusedMatMul", [left, right], { attributes: { transA, transB, alpha }, domain: MICROSOFT });
  const transposed = int(node, "transB", 0) === 1;
  return [
    wanted(0) ? product(g, y, 0, transposed ? 0 : 1) : undefined,
    wanted(1) ? (transposed ? product(g, x, 1, 0) : product(x, g, 1, 0)) : undefined,
  ];
}

/**
 * y = w · x · r with r = 1/√(mean x² + ε): dx = r · (w·g − x̂ · mean(w·g · x̂)), dw = Σ g · x̂, where x̂ = x · r
 * (Zhang and Sennrich 2019, equation 4 differentiated).
 */
function rmsNorm(
  b: GraphBuilder,
  x: string,
  weight: string,
  g: string,
  epsilon: number,
  wantWeight: boolean,
): { dx: string; dWeight: string | undefined } {
  const lastAxis = b.int64s([-1]);
  const meanSquare = b.node("ReduceMean", [b.node("Mul", [x, x]), lastAxis]);
  const deviation = b.node("Sqrt", [b.node("Add", [meanSquare, b.float32(epsilon)])]);
  const normed = b.node("Div", [x, deviation]);
  const scaled = b.node("Mul", [g, weight]);
  const mean = b.node("ReduceMean", [b.node("Mul", [scaled, normed]), lastAxis]);
  const dx = b.node("Div", [b.node("Sub", [scaled, b.node("Mul", [normed, mean])]), deviation]);
  if (!wantWeight) return { dx, dWeight: undefined };
  const rows = b.node("Reshape", [
    b.node("Mul", [g, normed]),
    b.node("Concat", [b.int64s([-1]), b.node("Shape", [weight])], { attributes: { axis: 0 } }),
  ]);
  return { dx, dWeight: b.node("ReduceSum", [rows, b.int64s([0])], { attributes: { keepdims: 0 } }) };
}

function zerosLike(b: GraphBuilder, value: string): string {
  return b.node("Mul", [value, b.float32(0)]);
}

function input(node: GraphNode, index: number): string {
  return node.inputs[index] ?? "";
}

function attribute(node: GraphNode, name: string): Attribute | undefined {
  return node.attributes[name];
}

function int(node: GraphNode, name: string, fallback: number): number {
  const value = attribute(node, name);
  return typeof value === "number" ? value : fallback;
}

function float(node: GraphNode, name: string, fallback: number): number {
  const value = attribute(node, name);
  return typeof value === "object" && "float" in value ? value.float : fallback;
}

function ints(node: GraphNode, name: string): readonly number[] {
  const value = attribute(node, name);
  if (typeof value === "object" && !("float" in value)) return value;
  throw new Error(`${node.op} lacks its attribute '${name}'`);
}
