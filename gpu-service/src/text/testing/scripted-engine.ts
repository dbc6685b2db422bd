import { once } from "node:events";
import type { Manifest } from "@fathom/shared";
import type {
  Engine,
  EngineAccount,
  EngineEvent,
  EngineFinishReason,
  EngineInfo,
  EngineLoad,
  EngineRequest,
  EngineStats,
  EngineTiming,
  ExitScores,
} from "../../engine/types.ts";

const TIMING: EngineTiming = { queueMs: 1, prefillMs: 2, timeToFirstTokenMs: 3, decodeMs: 40, totalMs: 43 };

export interface Script {
  /** Tokens to give, whatever the prompt; cut at the request's maxTokens. */
  tokens: readonly number[];
  /** Layers of each token; by default all at the request's depth. */
  layers?: readonly number[];
  /** Awaited before each token: lets a test decide how far an answer has come. */
  before?: (index: number) => Promise<void>;
  /** Thrown instead of the token at this index. */
  failure?: { at: number; error: Error };
  /** What the account says beyond a prompt prefilled at the request's depth. */
  account?: Partial<EngineAccount>;
  /** What the statistics say beyond what was played. */
  stats?: Partial<EngineStats>;
}

/**
 * An engine that plays a script instead of running a model, for tests of what lies around the engine: text that is cut across
 * tokens in a given way, slow answers, failures. It keeps the requests' time limits.
 */
export class ScriptedEngine implements Engine {
  readonly info: EngineInfo;
  readonly died = new Promise<Error>(() => {});
  readonly requests: EngineRequest[] = [];
  /** Requests that were cancelled before their script ended. */
  cancelled = 0;
  readonly #script: Script;
  readonly #exits = new Map<number, number>();
  #running = 0;
  #promptTokens = 0;
  #steps = 0;

  constructor(script: Script, exits: readonly number[] = [2, 4, 6, 8]) {
    this.#script = script;
    const layers = exits.at(-1) ?? 1;
    this.info = {
      architecture: { ...TINY_ARCHITECTURE, layers },
      exits: [...exits],
      contextLength: TINY_ARCHITECTURE.context_length,
      provider: "cpu",
      threads: 1,
    };
  }

  async *generate(request: EngineRequest, signal?: AbortSignal): AsyncGenerator<EngineEvent, void, void> {
    this.requests.push(request);
    this.#running++;
    const aborted = signal ? abortOf(signal) : new Promise<never>(() => {});
    const deadline = request.timeoutMs === undefined ? undefined : AbortSignal.timeout(request.timeoutMs);
    const late = deadline ? abortOf(deadline) : new Promise<never>(() => {});
    let complete = false;
    try {
      this.#promptTokens += request.prompt.length;
      const tokens = this.#script.tokens.slice(0, request.maxTokens);
      for (const [index, token] of tokens.entries()) {
        if (this.#script.failure?.at === index) throw this.#script.failure.error;
        await Promise.race([this.#script.before?.(index), aborted, late]);
        // A scheduler turn, as between two messages of a real worker.
        await new Promise((resolve) => setImmediate(resolve));
        if (signal?.aborted || deadline?.aborted) {
          yield this.#finished(request, signal?.aborted ? "cancelled" : "timeout");
          return;
        }
        const layers = this.#script.layers?.[index] ?? request.depth;
        this.#steps++;
        this.#exits.set(layers, (this.#exits.get(layers) ?? 0) + 1);
        yield { type: "token", token, layers };
      }
      complete = true;
      yield this.#finished(request, tokens.length === request.maxTokens ? "length" : "stop");
    } finally {
      this.#running--;
      if (!complete) this.cancelled++;
    }
  }

  #finished({ depth }: EngineRequest, reason: EngineFinishReason): EngineEvent {
    const account = { promptDepth: depth, cachedTokens: 0, preemptions: 0, ...this.#script.account };
    return { type: "finished", reason, timing: TIMING, account };
  }

  probe(prompt: readonly number[], depths: readonly number[]): Promise<{ depth: number; logits: Float32Array }[]> {
    return Promise.resolve(depths.map((depth) => ({ depth, logits: Float32Array.from([depth, prompt.length]) })));
  }

  score(tokens: readonly number[], from: number): Promise<ExitScores[]> {
    const positions = tokens.length - from;
    return Promise.resolve(
      this.info.exits.map((depth) => ({
        depth,
        predicted: new Int32Array(positions),
        confidence: new Float32Array(positions),
      })),
    );
  }

  load(): EngineLoad {
    return { running: this.#running, waiting: 0 };
  }

  stats(): EngineStats {
    const exits = [...this.#exits].map(([depth, tokens]) => ({ depth, reason: "fixed" as const, tokens }));
    return {
      ...this.load(),
      paused: 0,
      kvBytes: 0,
      kvBudgetBytes: 1024,
      prefixCacheBytes: 0,
      pendingRows: 0,
      steps: this.#steps,
      promptTokens: this.#promptTokens,
      generatedTokens: exits.reduce((sum, { tokens }) => sum + tokens, 0),
      prefixCacheQueries: 0,
      prefixCacheHits: 0,
      preemptions: 0,
      exits,
      draftProposed: 0,
      draftAccepted: 0,
      ...this.#script.stats,
    };
  }

  close(): Promise<void> {
    return Promise.resolve();
  }
}

async function abortOf(signal: AbortSignal): Promise<void> {
  if (!signal.aborted) await once(signal, "abort");
}

const TINY_ARCHITECTURE: EngineInfo["architecture"] = {
  type: "llama",
  hidden_size: 96,
  intermediate_size: 160,
  layers: 8,
  heads: 6,
  kv_heads: 3,
  head_dim: 16,
  vocab_size: 320,
  rms_norm_eps: 1e-5,
  context_length: 256,
  rope: { theta: 100_000 },
  tied: true,
};

/** A manifest to go with a scripted engine; it describes no weights. */
export function scriptedManifest({ info }: ScriptedEngine, more: Partial<Manifest> = {}): Manifest {
  return {
    format: "fathom-nested",
    version: 1,
    name: "tiny",
    architecture: info.architecture,
    exits: info.exits,
    quantization: { layers: "fp32", embedding: "fp32", head: "fp32" },
    tokenizer: { bos_token_id: 1, eos_token_ids: [2] },
    tensors: {},
    files: [],
    provenance: { source: "script", created: "2026-01-01T00:00:00Z" },
    ...more,
  };
}
