import { randomUUID } from "node:crypto";
import { Worker } from "node:worker_threads";
import { ApiError, requireExit } from "@fathom/shared";
import { EventQueue } from "./event-queue.ts";
import type { HostMessage, WorkerMessage, WorkerOptions } from "./protocol.ts";
import { MAX_DRAFT } from "./speculation.ts";
import type { Engine, EngineEvent, EngineInfo, EngineLoad, EngineRequest, EngineStats, ExitScores } from "./types.ts";

type ProbeResult = { depth: number; logits: Float32Array }[];

export interface WorkerEngineOptions {
  /** Requests that may wait for admission. */
  maxWaiting: number;
  /** A request whose answer nobody reads is dropped after this long, milliseconds. */
  stallMs: number;
}

/** A live request on the host's side. */
interface Stream {
  queue: EventQueue<EngineEvent>;
  stall: NodeJS.Timeout | undefined;
  /** Stops listening to the request's signal: Node keeps a combined signal alive for as long as somebody listens. */
  unlisten: () => void;
}

/** The host's side of the engine: checks requests, passes them to the worker thread and hands its events out. */
export class WorkerEngine implements Engine {
  readonly info: EngineInfo;
  readonly died: Promise<Error>;
  readonly #died = Promise.withResolvers<Error>();
  readonly #worker: Worker;
  readonly #options: WorkerEngineOptions;
  readonly #maxConcurrent: number;
  readonly #streams = new Map<string, Stream>();
  readonly #probes = new Map<string, PromiseWithResolvers<ProbeResult>>();
  readonly #scorings = new Map<string, PromiseWithResolvers<ExitScores[]>>();
  #stats: EngineStats;
  #state: "running" | "closing" | "dead" = "running";

  private constructor(
    worker: Worker,
    { info, stats }: { info: EngineInfo; stats: EngineStats },
    maxConcurrent: number,
    options: WorkerEngineOptions,
  ) {
    this.#worker = worker;
    this.info = info;
    this.#stats = stats;
    this.died = this.#died.promise;
    this.#maxConcurrent = maxConcurrent;
    this.#options = options;
    worker.on("message", (message: WorkerMessage) => this.#receive(message));
    worker.on("error", (error) => this.#die(error));
    worker.on("exit", () => this.#die(new Error("the engine's worker thread ended")));
  }

  /** Starts the thread and waits until its sessions are loaded. @throws the worker's error when they cannot be. */
  static async start(options: WorkerOptions, engineOptions: WorkerEngineOptions): Promise<WorkerEngine> {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { workerData: options, name: "engine" });
    const ready = await new Promise<{ info: EngineInfo; stats: EngineStats }>((resolve, reject) => {
      worker.once("error", reject);
      worker.once("exit", (code) => reject(new Error(`the engine ended with code ${code} while loading`)));
      worker.once("message", (message: WorkerMessage) => {
        if (message.type === "ready") resolve(message);
      });
    });
    return new WorkerEngine(worker, ready, options.maxConcurrent, engineOptions);
  }

  generate(request: EngineRequest, signal?: AbortSignal): AsyncIterable<EngineEvent> {
    this.#check(request);
    const { id } = request;
    const queue = new EventQueue<EngineEvent>({
      onReturn: () => this.#send({ type: "cancel", id }),
      onPause: (paused) => this.#pause(id, paused),
    });
    const onAbort = () => this.#send({ type: "cancel", id });
    this.#streams.set(id, { queue, stall: undefined, unlisten: () => signal?.removeEventListener("abort", onAbort) });
    this.#send({ type: "generate", request, submittedAt: performance.timeOrigin + performance.now() });
    if (signal?.aborted) onAbort();
    else signal?.addEventListener("abort", onAbort, { once: true });
    return queue;
  }

  probe(prompt: readonly number[], depths: readonly number[]): Promise<ProbeResult> {
    this.#requireRunning();
    for (const depth of depths) requireExit(this.info.exits, depth, "depths");
    this.#checkPrompt(prompt, 0);
    const id = randomUUID();
    const result = Promise.withResolvers<ProbeResult>();
    this.#probes.set(id, result);
    this.#send({ type: "probe", id, prompt, depths });
    return result.promise;
  }

  score(tokens: readonly number[], from: number, withLoss = false): Promise<ExitScores[]> {
    this.#requireRunning();
    this.#checkPrompt(tokens, 0);
    if (!Number.isInteger(from) || from < 0 || from >= tokens.length) {
      throw new RangeError(`'from' must be a position of the ${tokens.length} tokens, not ${from}`);
    }
    const id = randomUUID();
    const result = Promise.withResolvers<ExitScores[]>();
    this.#scorings.set(id, result);
    this.#send({ type: "score", id, tokens, from, withLoss });
    return result.promise;
  }

  stats(): EngineStats {
    return this.#stats;
  }

  load(): EngineLoad {
    const live = this.#streams.size;
    const running = Math.min(live, this.#maxConcurrent);
    return { running, waiting: live - running };
  }

  async close(): Promise<void> {
    if (this.#state === "dead") return;
    this.#state = "closing";
    const ended = new Promise<void>((resolve) => this.#worker.once("exit", () => resolve()));
    this.#send({ type: "close" });
    await ended;
  }

  #check(request: EngineRequest): void {
    this.#requireRunning();
    requireExit(this.info.exits, request.depth);
    this.#checkPolicy(request);
    this.#checkPrompt(request.prompt, request.maxTokens);
    if (this.#streams.has(request.id)) throw new ApiError("invalid_request", `request id '${request.id}' is in use`);
    if (this.#streams.size >= this.#maxConcurrent + this.#options.maxWaiting) {
      throw new ApiError("overloaded", "the service is at capacity; try again shortly", { retryAfter: 1 });
    }
  }

  #checkPolicy({ depth, minDepth, policy }: EngineRequest): void {
    if (minDepth !== undefined) requireExit(this.info.exits, minDepth, "fathom.min_depth");
    if (policy?.type !== "speculative") return;
    requireExit(this.info.exits, policy.draftDepth, "fathom.min_depth");
    const { draftLength = 1 } = policy;
    if (!Number.isInteger(draftLength) || draftLength < 1 || draftLength > MAX_DRAFT) {
      throw new ApiError("invalid_request", `a draft has 1 to ${MAX_DRAFT} tokens, not ${draftLength}`);
    }
    if (policy.draftDepth < depth) return;
    throw new ApiError("invalid_depth", `a draft at ${policy.draftDepth} is not shallower than its target ${depth}`, {
      param: "fathom.min_depth",
    });
  }

  #checkPrompt(prompt: readonly number[], maxTokens: number): void {
    const { contextLength, architecture } = this.info;
    const { vocab_size: vocabSize } = architecture;
    if (prompt.length === 0) throw new ApiError("invalid_request", "the prompt holds no token", { param: "prompt" });
    const alien = prompt.find((token) => !Number.isInteger(token) || token < 0 || token >= vocabSize);
    if (alien !== undefined) {
      throw new ApiError("invalid_request", `token ${alien} is not in the vocabulary of ${vocabSize}`, {
        param: "prompt",
      });
    }
    if (prompt.length + maxTokens > contextLength) {
      throw new ApiError(
        "context_length_exceeded",
        `the context holds ${contextLength} tokens; the prompt has ${prompt.length} and ${maxTokens} were asked for`,
        { param: prompt.length >= contextLength ? "prompt" : "max_tokens" },
      );
    }
  }

  #requireRunning(): void {
    if (this.#state === "closing") throw new ApiError("draining", "the service is shutting down", { retryAfter: 5 });
    if (this.#state === "dead") throw new ApiError("internal_error", "the engine has stopped");
  }

  #send(message: HostMessage): void {
    if (this.#state !== "dead") this.#worker.postMessage(message);
  }

  #receive(message: WorkerMessage): void {
    switch (message.type) {
      case "ready":
        break;
      case "events":
        for (const { id, event } of message.events) this.#deliver(id, event);
        break;
      case "stats":
        this.#stats = message.stats;
        break;
      case "scored":
        this.#scorings.get(message.id)?.resolve(message.exits);
        this.#scorings.delete(message.id);
        break;
      case "probed":
        this.#probes.get(message.id)?.resolve(message.exits);
        this.#probes.delete(message.id);
        break;
      case "failed":
        this.#fail(message.id, new ApiError("internal_error", `the engine failed: ${message.message}`));
        break;
    }
  }

  #deliver(id: string, event: EngineEvent): void {
    const stream = this.#streams.get(id);
    if (!stream) return;
    stream.queue.push(event);
    if (event.type !== "finished") return;
    this.#end(id);
    stream.queue.end();
  }

  /** A reader that lags behind stalls nobody: its request stands still, and is dropped when it does so for too long. */
  #pause(id: string, paused: boolean): void {
    const stream = this.#streams.get(id);
    if (!stream) return;
    clearTimeout(stream.stall);
    stream.stall = undefined;
    this.#send({ type: "pause", id, paused });
    if (!paused) return;
    const { stallMs } = this.#options;
    stream.stall = setTimeout(() => {
      this.#send({ type: "cancel", id });
      this.#fail(id, new ApiError("cancelled", `nobody read the answer for ${stallMs / 1000} s`));
    }, stallMs);
    stream.stall.unref();
  }

  #end(id: string): void {
    const stream = this.#streams.get(id);
    clearTimeout(stream?.stall);
    stream?.unlisten();
    this.#streams.delete(id);
  }

  #fail(id: string, error: ApiError): void {
    const queue = this.#streams.get(id)?.queue;
    this.#end(id);
    queue?.fail(error);
    this.#probes.get(id)?.reject(error);
    this.#probes.delete(id);
    this.#scorings.get(id)?.reject(error);
    this.#scorings.delete(id);
  }

  #die(error: Error): void {
    if (this.#state === "dead") return;
    if (this.#state === "running") this.#died.resolve(error);
    this.#state = "dead";
    const apiError = new ApiError("internal_error", "the engine has stopped", { cause: error });
    for (const id of [...this.#streams.keys(), ...this.#probes.keys(), ...this.#scorings.keys()])
      this.#fail(id, apiError);
  }
}
