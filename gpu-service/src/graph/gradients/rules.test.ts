import ort from "onnxruntime-node";
import { expect, test } from "vitest";
import { randomStream } from "../../random/random-stream.ts";
import { GraphBuilder, MICROSOFT } from "../graph-builder.ts";
import { encodeModel } from "../onnx.ts";
import { differentiate } from "./differentiate.ts";
import { RULES } from "./rules.ts";

interface Case {
  name: string;
  /** Shapes of the inputs, all of which get a gradient. */
  inputs: Record<string, number[]>;
  /** Emits the operator; its results are summed with random weights into the loss. */
  emit: (b: GraphBuilder) => string[];
}

const float = (value: number) => ({ float: value });
const fused = (attributes: Record<string, number>) => (b: GraphBuilder) => [
  b.node("FusedMatMul", ["x", "y"], { attributes: { ...attributes, alpha: float(0.7) }, domain: MICROSOFT }),
];

const CASES: Case[] = [
  { name: "Identity", inputs: { x: [2, 3] }, emit: (b) => [b.node("Identity", ["x"])] },
  { name: "Add", inputs: { x: [2, 3], y: [2, 3] }, emit: (b) => [b.node("Add", ["x", "y"])] },
  { name: "Mul", inputs: { x: [2, 3], y: [2, 3] }, emit: (b) => [b.node("Mul", ["x", "y"])] },
  { name: "Reshape", inputs: { x: [2, 6] }, emit: (b) => [b.node("Reshape", ["x", b.int64s([3, -1])])] },
  {
    name: "Transpose",
    inputs: { x: [2, 3, 4] },
    emit: (b) => [b.node("Transpose", ["x"], { attributes: { perm: [1, 2, 0] } })],
  },
  { name: "Split", inputs: { x: [2, 5] }, emit: (b) => b.split("x", [2, 3]) },
  { name: "Split, one part unused", inputs: { x: [2, 5] }, emit: (b) => b.split("x", [2, 3]).slice(1) },
  { name: "Softmax", inputs: { x: [3, 4] }, emit: (b) => [b.node("Softmax", ["x"], { attributes: { axis: -1 } })] },
  { name: "FusedMatMul", inputs: { x: [2, 3], y: [3, 4] }, emit: fused({}) },
  { name: "FusedMatMul, transB", inputs: { x: [2, 3], y: [4, 3] }, emit: fused({ transB: 1 }) },
  { name: "FusedMatMul, batched", inputs: { x: [2, 3, 4], y: [2, 4, 5] }, emit: fused({}) },
  { name: "FusedMatMul, batched transB", inputs: { x: [2, 3, 4], y: [2, 5, 4] }, emit: fused({ transB: 1 }) },
  {
    name: "QuickGelu",
    inputs: { x: [3, 4] },
    emit: (b) => [b.node("QuickGelu", ["x"], { attributes: { alpha: float(1) }, domain: MICROSOFT })],
  },
  {
    name: "RotaryEmbedding",
    inputs: { x: [2, 3, 8] },
    emit: (b) => {
      const angles = Array.from({ length: 6 }, (_, i) => 0.3 * i);
      const cos = b.matrix("cos", Float32Array.from(angles, Math.cos), [3, 2]);
      const sin = b.matrix("sin", Float32Array.from(angles, Math.sin), [3, 2]);
      const attributes = { num_heads: 2, rotary_embedding_dim: 0, interleaved: 0 };
      return [b.node("RotaryEmbedding", ["x", b.int64s([0]), cos, sin], { attributes, domain: MICROSOFT })];
    },
  },
  {
    name: "SimplifiedLayerNormalization",
    inputs: { x: [3, 4], w: [4] },
    emit: (b) => {
      const attributes = { axis: -1, epsilon: float(1e-5) };
      return [b.node("SimplifiedLayerNormalization", ["x", "w"], { attributes })];
    },
  },
  ...[0, 1, 2].map((used) => ({
    name: `SkipSimplifiedLayerNormalization, ${["both outputs", "the norm", "the sum"][used]}`,
    inputs: { x: [1, 3, 4], y: [1, 3, 4], ...(used === 2 ? {} : { w: [4] }) },
    emit: (b: GraphBuilder) => {
      const weight = used === 2 ? b.matrix("w", Float32Array.of(1, 2, 3, 4), [4]) : "w";
      b.nodes("SkipSimplifiedLayerNormalization", ["x", "y", weight], ["normed", "", "", "sum"], {
        attributes: { epsilon: float(1e-5) },
        domain: MICROSOFT,
      });
      return used === 0 ? ["normed", "sum"] : used === 1 ? ["normed"] : ["sum"];
    },
  })),
  {
    name: "Mul of a value with itself",
    inputs: { x: [2, 3] },
    emit: (b) => [b.node("Mul", ["x", "x"])],
  },
];

test("every rule has a case", () => {
  const tested = new Set(CASES.map(({ name }) => name.split(/[ ,]/)[0]));
  expect(Object.keys(RULES).filter((op) => !tested.has(op))).toEqual([]);
});

test.each(CASES)("$name: the gradient is the slope", async ({ inputs, emit }) => {
  const random = randomStream(11);
  const noise = (count: number) => Float32Array.from({ length: count }, () => 2 * random() - 1);
  const b = new GraphBuilder("case");
  const values = new Map<string, { data: Float32Array; shape: number[] }>();
  for (const [name, shape] of Object.entries(inputs)) {
    b.input(name, "float32", shape);
    values.set(name, { data: noise(shape.reduce((x, y) => x * y, 1)), shape });
  }
  const outputs = emit(b);
  const seeds = new Map(outputs.map((output, i) => [output, b.input(`seed ${i}`, "float32", [])]));
  // The loss weighs each output's elements by a seed of its shape, which the first run reveals.
  for (const output of outputs) b.output(output, "float32");
  const forward = await session(b);
  for (const [name, gradient] of differentiate(b, seeds, Object.keys(inputs))) {
    b.output(b.node("Identity", [gradient], { as: `d ${name}` }), "float32");
  }
  const both = await session(b);

  const at = async (moved?: Map<string, Float32Array>) => {
    const feeds: Record<string, ort.Tensor> = {};
    for (const [name, { data, shape }] of values) {
      feeds[name] = new ort.Tensor("float32", moved?.get(name) ?? data, shape);
    }
    return feeds;
  };
  const first = await forward.run(pick(await at(), forward));
  const weights = outputs.map((output) => {
    const { dims, size } = first[output] as ort.Tensor;
    return new ort.Tensor("float32", noise(size), dims);
  });
  const loss = async (feeds: Record<string, ort.Tensor>) => {
    const results = await forward.run(pick(feeds, forward));
    return outputs.reduce((sum, output, i) => sum + dot(results[output]?.data, weights[i]?.data), 0);
  };
  const seedFeeds = Object.fromEntries(weights.map((weight, i) => [`seed ${i}`, weight]));
  const gradients = await both.run({ ...(await at()), ...seedFeeds });

  for (const [name, { data }] of values) {
    const direction = noise(data.length);
    const side = async (h: number) =>
      loss(await at(new Map([[name, data.map((x, i) => x + h * (direction[i] ?? 0))]])));
    const difference = async (h: number) => ((await side(h)) - (await side(-h))) / (2 * h);
    // Two widths, so that the third derivative's share cancels.
    const slope = (4 * (await difference(0.02)) - (await difference(0.04))) / 3;
    const gradient = gradients[`d ${name}`];
    expect(gradient?.dims).toEqual(inputs[name]);
    expect(dot(gradient?.data, direction), name).toBeCloseTo(slope, 3);
  }
  await Promise.all([forward.release(), both.release()]);
});

test("an operator without a rule is named", () => {
  const b = new GraphBuilder("case");
  const x = b.input("x", "float32", [2]);
  const y = b.node("Sin", [x]);
  expect(() => differentiate(b, new Map([[y, b.float32(1)]]), [x])).toThrow("no gradient rule for operator Sin");
});

function session(b: GraphBuilder): Promise<ort.InferenceSession> {
  const graph = b.graph();
  // A seed takes the shape of what it weighs.
  const inputs = graph.inputs.map((input) => (input.name.startsWith("seed") ? { ...input, shape: undefined } : input));
  const used = new Set(graph.nodes.flatMap((node) => node.inputs));
  return ort.InferenceSession.create(encodeModel({ ...graph, inputs: inputs.filter(({ name }) => used.has(name)) }), {
    logSeverityLevel: 3,
  });
}

function pick(feeds: Record<string, ort.Tensor>, { inputNames }: ort.InferenceSession): Record<string, ort.Tensor> {
  return Object.fromEntries(Object.entries(feeds).filter(([name]) => inputNames.includes(name)));
}

function dot(x: unknown, y: unknown): number {
  if (!(x instanceof Float32Array && y instanceof Float32Array)) throw new TypeError("two float32 arrays are needed");
  return x.reduce((sum, value, i) => sum + value * (y[i] ?? Number.NaN), 0);
}
