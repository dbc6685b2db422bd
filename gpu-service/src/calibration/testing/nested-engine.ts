import { type Architecture, type ExitSet, fullDepth } from "@fathom/shared";
import type {
  Engine,
  EngineEvent,
  EngineInfo,
  EngineRequest,
  EngineStats,
  EngineTiming,
  ExitScores,
} from "../../engine/types.ts";
import { randomStream } from "../../random/random-stream.ts";

const TIMING: EngineTiming = { queueMs: 0, prefillMs: 1, timeToFirstTokenMs: 1, decodeMs: 1, totalMs: 2 };
const STOP_SHARE = 0.04;

export interface NestedEngineOptions {
  stopTokenId: number;
  /** Share of tokens for which an exit is unsure, and then wrong every other time; the deeper, the fewer. */
  unsure?: number;
  /** Share of tokens for which an exit is wrong although sure. */
  wrong?: number;
  /** Exits that are sure have a confidence of 1. */
  saturated?: boolean;
  /** Scores disagree with what was generated. */
  broken?: boolean;
  /** Called with the number of answers begun, before each. */
  onAnswer?: (count: number) => void;
}

/**
 * A made-up nested model: the next token follows from a hash of the prefix, every exit knows it with a probability of its own.
 * It generates and scores as an engine does, in no time.
 */
export class NestedEngine implements Engine {
  readonly info: EngineInfo;
  readonly died = new Promise<Error>(() => {});
  readonly requests: EngineRequest[] = [];
  closed = false;
  readonly #options: Required<Omit<NestedEngineOptions, "onAnswer">> & Pick<NestedEngineOptions, "onAnswer">;

  constructor(architecture: Architecture, exits: ExitSet, options: NestedEngineOptions) {
    this.info = { architecture, exits, contextLength: architecture.context_length, provider: "cpu", threads: 1 };
    this.#options = { unsure: 0.4, wrong: 0.002, saturated: false, broken: false, ...options };
  }

  async *generate(request: EngineRequest, signal?: AbortSignal): AsyncGenerator<EngineEvent, void, void> {
    this.requests.push(request);
    this.#options.onAnswer?.(this.requests.length);
    const prefix = [...request.prompt];
    const account = { promptDepth: request.depth, cachedTokens: 0, preemptions: 0 };
    for (let i = 0; i < request.maxTokens; i++) {
      await new Promise((resolve) => setImmediate(resolve));
      if (signal?.aborted) {
        yield { type: "finished", reason: "cancelled", timing: TIMING, account };
        return;
      }
      const token = this.#next(prefix);
      if (request.stopTokenIds.includes(token)) {
        yield { type: "finished", reason: "stop", timing: TIMING, account };
        return;
      }
      prefix.push(token);
      yield { type: "token", token, layers: request.depth };
    }
    yield { type: "finished", reason: "length", timing: TIMING, account };
  }

  score(tokens: readonly number[], from: number): Promise<ExitScores[]> {
    const { exits } = this.info;
    const positions = tokens.length - from;
    const scores = exits.map((depth) => {
      const score = { depth, predicted: new Int32Array(positions), confidence: new Float32Array(positions) };
      for (let i = 0; i < positions; i++) {
        const { token, confidence } = this.#predict(tokens.slice(0, from + i + 1), depth);
        score.predicted[i] = token;
        score.confidence[i] = confidence;
      }
      return score;
    });
    return Promise.resolve(scores);
  }

  probe(): Promise<never> {
    return Promise.reject(new Error("a made-up model has no logits"));
  }

  load(): { running: number; waiting: number } {
    return { running: 0, waiting: 0 };
  }

  stats(): EngineStats {
    throw new Error("a made-up model counts nothing");
  }

  close(): Promise<void> {
    this.closed = true;
    return Promise.resolve();
  }

  #next(prefix: readonly number[]): number {
    const random = randomStream(...prefix);
    if (random() < STOP_SHARE) return this.#options.stopTokenId;
    return 3 + Math.floor(random() * (this.info.architecture.vocab_size - 4));
  }

  #predict(prefix: readonly number[], depth: number): { token: number; confidence: number } {
    const full = fullDepth(this.info.exits);
    const { unsure, wrong, saturated, broken } = this.#options;
    const right = this.#next(prefix) + (broken ? 1 : 0);
    if (depth === full) return { token: right, confidence: 0.99 };
    const random = randomStream(depth, ...prefix);
    const sure = random() >= unsure * (1 - depth / full);
    const mistaken = random() < (sure ? wrong : 0.5);
    const confidence = sure ? (saturated ? 1 : 0.9 + 0.1 * random()) : 0.8 * random();
    return { token: mistaken ? right + 1 : right, confidence };
  }
}
