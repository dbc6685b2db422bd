import { type Architecture, LAYER_MATRICES, layerMatrixShape } from "@fathom/shared";
import ort from "onnxruntime-node";
import { differentiate } from "../graph/gradients/differentiate.ts";
import { GraphBuilder, MICROSOFT } from "../graph/graph-builder.ts";
import { encodeModel, type Graph } from "../graph/onnx.ts";
import { type Gradients, type Parameters, parameter } from "./parameters.ts";
import { randomStream } from "./random.ts";
import { floats, tensor } from "./tensors.ts";
import { type SessionOptions, sessionOptions } from "./training-sessions.ts";

/** α / r of the paper with α = 2r, the usual choice: the update is scaled alike whatever the rank. */
const SCALE = 2;
/** Random stream of the initial A matrices. */
const INITIAL_STREAM = 3;

interface Adapted {
  /** The matrix's checkpoint name; its adapters are `NAME.lora_a` and `NAME.lora_b`. */
  name: string;
  shape: readonly [n: number, k: number];
}

const nameOfA = (name: string) => `${name}.lora_a`;
const nameOfB = (name: string) => `${name}.lora_b`;

/**
 * Low-rank adapters of the layers' matrices: W = W₀ + 2·B·A with A [r, K] random and B [N, r] zero at first (Hu et al. 2021,
 * section 4.1). Packed projections share one adapter. The trainer works on the merged matrices; their gradients are taken
 * back to A and B.
 */
export class LoraAdapters {
  /** A and B of every adapted matrix, by name; training changes them in place. */
  readonly parameters: Parameters;
  readonly #rank: number;
  readonly #base: Parameters;
  readonly #adapted: readonly Adapted[];
  readonly #options: ort.InferenceSession.SessionOptions;
  #sessions: Promise<{ merge: ort.InferenceSession; pullBack: ort.InferenceSession }> | undefined;

  /**
   * @param layers layers whose matrices are adapted
   * @param saved adapters to go on with; default: fresh ones from the seed
   */
  constructor(
    a: Architecture,
    base: Parameters,
    layers: readonly number[],
    { rank, seed, saved }: { rank: number; seed: number; saved: Parameters | undefined },
    options: SessionOptions,
  ) {
    this.#rank = rank;
    this.#base = base;
    this.#options = sessionOptions(options);
    this.#adapted = layers.flatMap((layer) =>
      LAYER_MATRICES.map((matrix) => ({ name: `layers.${layer}.${matrix}`, shape: layerMatrixShape(a, matrix) })),
    );
    this.parameters = saved ?? this.#fresh(seed);
  }

  /** Puts W₀ + 2·B·A of every adapted matrix into `parameters`. */
  async merge(parameters: Parameters): Promise<void> {
    const { merge } = await this.#load();
    for (const { name, shape } of this.#adapted) {
      const base = tensor(parameter(this.#base, name), shape);
      const outputs = await merge.run({ base, ...this.#feeds(name, shape) });
      parameters.set(name, floats(outputs, "merged"));
    }
  }

  /** Gradients of A and B from those of the merged matrices; others are left out. */
  async pullBack(gradients: Gradients): Promise<Gradients> {
    const { pullBack } = await this.#load();
    const own: Gradients = new Map();
    for (const { name, shape } of this.#adapted) {
      const gradient = gradients.get(name);
      if (!gradient) continue;
      const outputs = await pullBack.run({ gradient: tensor(gradient, shape), ...this.#feeds(name, shape) });
      own.set(nameOfA(name), floats(outputs, "d a"));
      own.set(nameOfB(name), floats(outputs, "d b"));
    }
    return own;
  }

  /** Frees the native sessions. */
  async close(): Promise<void> {
    const sessions = await this.#sessions;
    await Promise.all([sessions?.merge.release(), sessions?.pullBack.release()]);
  }

  #feeds(name: string, [n, k]: Adapted["shape"]) {
    return {
      a: tensor(parameter(this.parameters, nameOfA(name)), [this.#rank, k]),
      b: tensor(parameter(this.parameters, nameOfB(name)), [n, this.#rank]),
    };
  }

  #fresh(seed: number): Parameters {
    const parameters: Parameters = new Map();
    for (const [index, { name, shape }] of this.#adapted.entries()) {
      const [n, k] = shape;
      const random = randomStream(seed, INITIAL_STREAM, index);
      // Uniform in ±1/√K, as PyTorch initialises a linear layer.
      const bound = 1 / Math.sqrt(k);
      parameters.set(
        nameOfA(name),
        Float32Array.from({ length: this.#rank * k }, () => (2 * random() - 1) * bound),
      );
      parameters.set(nameOfB(name), new Float32Array(n * this.#rank));
    }
    return parameters;
  }

  #load() {
    this.#sessions ??= (async () => {
      const session = (graph: Graph) => ort.InferenceSession.create(encodeModel(graph), this.#options);
      return { merge: await session(mergeGraph()), pullBack: await session(pullBackGraph()) };
    })();
    return this.#sessions;
  }
}

/** `merged` = `base` + 2 · `b` · `a`, all float32. */
function mergeGraph(): Graph {
  const b = new GraphBuilder("merge adapters");
  b.node("Add", [b.input("base", "float32", ["N", "K"]), product(b)], { as: "merged" });
  b.output("merged", "float32", ["N", "K"]);
  return b.graph();
}

/** `d a` and `d b` from `gradient`, the gradient of the merged matrix. */
function pullBackGraph(): Graph {
  const b = new GraphBuilder("adapter gradients");
  const merged = product(b);
  const gradients = differentiate(b, new Map([[merged, b.input("gradient", "float32", ["N", "K"])]]), ["a", "b"]);
  for (const [name, gradient] of gradients) {
    b.output(b.node("Identity", [gradient], { as: `d ${name}` }), "float32");
  }
  return b.graph();
}

function product(b: GraphBuilder): string {
  const inputs = [b.input("b", "float32", ["N", "R"]), b.input("a", "float32", ["R", "K"])];
  return b.node("FusedMatMul", inputs, { attributes: { alpha: { float: SCALE } }, domain: MICROSOFT });
}
