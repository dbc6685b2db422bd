import { type Architecture, tensorShapes } from "@fathom/shared";
import ort from "onnxruntime-node";
import { GraphBuilder, MICROSOFT } from "../graph/graph-builder.ts";
import { ADAPTER_SCALE, adapterNames } from "../graph/llama-training.ts";
import { encodeModel, type Graph } from "../graph/onnx.ts";
import { randomStream } from "../random/random-stream.ts";
import { type Parameters, parameter } from "./parameters.ts";
import { floats, tensor } from "./tensors.ts";
import { type SessionOptions, sessionOptions } from "./training-sessions.ts";

/** Random stream of the initial A matrices. */
const INITIAL_STREAM = 3;

/**
 * Fresh low-rank adapters of layer matrices, by name: W = W₀ + 2·B·A with A [r, K] random and B [N, r] zero (Hu et al.
 * 2021, section 4.1), so that they change nothing yet. Packed projections share one adapter.
 * @param matrices full names of the matrices that are adapted
 */
export function freshAdapters(a: Architecture, matrices: ReadonlySet<string>, rank: number, seed: number): Parameters {
  const parameters: Parameters = new Map();
  const chosen = [...tensorShapes(a)].filter(([name]) => matrices.has(name));
  for (const [index, [name, [n = 0, k = 0]]] of chosen.entries()) {
    const random = randomStream(seed, INITIAL_STREAM, index);
    // Uniform in ±1/√K, as PyTorch initialises a linear layer.
    const bound = 1 / Math.sqrt(k);
    const names = adapterNames(name);
    parameters.set(
      names.a,
      Float32Array.from({ length: rank * k }, () => (2 * random() - 1) * bound),
    );
    parameters.set(names.b, new Float32Array(n * rank));
  }
  return parameters;
}

/** All parameters without adapters: W₀ + 2·B·A takes the place of every adapted matrix, the others are the same arrays. */
export async function mergeAdapters(
  a: Architecture,
  adapted: Parameters,
  options: SessionOptions,
): Promise<Parameters> {
  const merged: Parameters = new Map();
  const session = await ort.InferenceSession.create(encodeModel(mergeGraph()), sessionOptions(options));
  try {
    const shapes = tensorShapes(a);
    for (const [name, values] of adapted) {
      if (name.endsWith(".lora_a") || name.endsWith(".lora_b")) continue;
      const [n = 0, k = 0] = shapes.get(name) ?? [];
      const names = adapterNames(name);
      if (!adapted.has(names.a)) {
        merged.set(name, values);
        continue;
      }
      const A = parameter(adapted, names.a);
      const B = parameter(adapted, names.b);
      const feeds = { base: tensor(values, [n, k]), a: tensor(A, [A.length / k, k]), b: tensor(B, [n, B.length / n]) };
      merged.set(name, floats(await session.run(feeds), "merged"));
    }
  } finally {
    await session.release();
  }
  return merged;
}

/** `merged` = `base` + 2 · `b` · `a`, all float32. */
function mergeGraph(): Graph {
  const b = new GraphBuilder("merge adapters");
  const factors = [b.input("b", "float32", ["N", "R"]), b.input("a", "float32", ["R", "K"])];
  const product = b.node("FusedMatMul", factors, {
    attributes: { alpha: { float: ADAPTER_SCALE } },
    domain: MICROSOFT,
  });
  b.node("Add", [b.input("base", "float32", ["N", "K"]), product], { as: "merged" });
  b.output("merged", "float32", ["N", "K"]);
  return b.graph();
}
