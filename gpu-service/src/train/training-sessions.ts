import type { Architecture } from "@fathom/shared";
import ort from "onnxruntime-node";
import type { ExecutionProvider } from "../engine/types.ts";
import {
  buildTrainingHead,
  buildTrainingLayer,
  type LayerLearns,
  type TrainingHeadOptions,
} from "../graph/llama-training.ts";
import { encodeModel, type Graph } from "../graph/onnx.ts";

export interface SessionOptions {
  threads: number;
  /** Idle threads wait actively: faster on a machine of one's own, wasteful beside other work. Default true. */
  spinning?: boolean;
  /** Where the graphs run; operators that a provider lacks fall back to the CPU. Default cpu. */
  provider?: ExecutionProvider;
}

export interface LayerSessions {
  forward: ort.InferenceSession;
  backward: ort.InferenceSession;
}

/** The ONNX Runtime sessions of training, each made when it is first needed. */
export class TrainingSessions {
  readonly #a: Architecture;
  readonly #options: ort.InferenceSession.SessionOptions;
  readonly #layers = new Map<string, Promise<LayerSessions>>();
  readonly #heads = new Map<string, Promise<ort.InferenceSession>>();

  constructor(a: Architecture, options: SessionOptions) {
    this.#a = a;
    this.#options = sessionOptions(options);
  }

  /** A layer's two passes. */
  layer(learns: LayerLearns): Promise<LayerSessions> {
    return memo(this.#layers, JSON.stringify(learns), async () => {
      const { forward, backward } = buildTrainingLayer(this.#a, learns);
      return { forward: await this.#create(forward), backward: await this.#create(backward) };
    });
  }

  head(options: TrainingHeadOptions): Promise<ort.InferenceSession> {
    return memo(this.#heads, JSON.stringify(options), () => this.#create(buildTrainingHead(this.#a, options)));
  }

  /** Frees the native sessions. */
  async close(): Promise<void> {
    const layers = await Promise.all(this.#layers.values());
    const heads = await Promise.all(this.#heads.values());
    const sessions = [...layers.flatMap(({ forward, backward }) => [forward, backward]), ...heads];
    this.#layers.clear();
    this.#heads.clear();
    await Promise.all(sessions.map((session) => session.release()));
  }

  #create(graph: Graph): Promise<ort.InferenceSession> {
    return ort.InferenceSession.create(encodeModel(graph), this.#options);
  }
}

/** ONNX Runtime's options for a session of training. */
export function sessionOptions({
  threads,
  spinning = true,
  provider = "cpu",
}: SessionOptions): ort.InferenceSession.SessionOptions {
  return {
    executionProviders: provider === "cpu" ? ["cpu"] : [provider, "cpu"],
    intraOpNumThreads: threads,
    logSeverityLevel: 3,
    extra: { session: { intra_op: { allow_spinning: spinning ? "1" : "0" }, force_spinning_stop: "1" } },
  };
}

function memo<K, V>(known: Map<K, V>, key: K, make: () => V): V {
  const value = known.get(key) ?? make();
  known.set(key, value);
  return value;
}
