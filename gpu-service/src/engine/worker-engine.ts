import { randomUUID } from "node:crypto";
import { Worker } from "node:worker_threads";
import { ApiError, requireExit } from "@fathom/shared";
import { EventQueue } from "./event-queue.ts";
import type { HostMessage, WorkerMessage, WorkerOptions } from "./protocol.ts";
import type { Engine, EngineEvent, EngineInfo, EngineLoad, EngineRequest } from "./types.ts";

type ProbeResult = { depth: number; logits: Float32Array }[];

/** The host's side of the engine: checks requests, passes them to the worker thread and hands its events out. */
export class WorkerEngine implements Engine {
  readonly info: EngineInfo;
  readonly died: Promise<Error>;
  readonly #died = Promise.withResolvers<Error>();
  readonly #worker: Worker;
  readonly #capacity: number;
  readonly #maxConcurrent: number;
  readonly #streams = new Map<string, EventQueue<EngineEvent>>();
  readonly #probes = new Map<string, PromiseWithResolvers<ProbeResult>>();
  #state: "running" | "closing" | "dead" = "running";

  private constructor(worker: Worker, info: EngineInfo, maxConcurrent: number, maxWaiting: number) {
    this.#worker = worker;
    this.info = info;
    this.died = this.#died.promise;
    this.#maxConcurrent = maxConcurrent;
    this.#capacity = maxConcurrent + maxWaiting;
    worker.on("message", (message: WorkerMessage) => this.#receive(message));
    worker.on("error", (error) => this.#die(error));
    worker.on("exit", () => this.#die(new Error("the engine's worker thread ended")));
  }

  /** Starts the thread and waits until its sessions are loaded. @throws the worker's error when they cannot be. */
  static async start(options: WorkerOptions, maxWaiting: number): Promise<WorkerEngine> {
    const worker = new Worker(new URL("./worker.ts", import.meta.url), { workerData: options, name: "engine" });
    const info = await new Promise<EngineInfo>((resolve, reject) => {
      worker.once("error", reject);
      worker.once("exit", (code) => reject(new Error(`the engine ended with code ${code} while loading`)));
      worker.once("message", (message: WorkerMessage) => {
        if (message.type === "ready") resolve(message.info);
      });
    });
    return new WorkerEngine(worker, info, options.maxConcurrent, maxWaiting);
  }

  generate(request: EngineRequest, signal?: AbortSignal): AsyncIterable<EngineEvent> {
    this.#check(request);
    const { id } = request;
    const queue = new EventQueue<EngineEvent>(() => this.#send({ type: "cancel", id }));
    this.#streams.set(id, queue);
    this.#send({ type: "generate", request, submittedAt: performance.timeOrigin + performance.now() });
    if (signal?.aborted) this.#send({ type: "cancel", id });
    else signal?.addEventListener("abort", () => this.#send({ type: "cancel", id }), { once: true });
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
    this.#checkPrompt(request.prompt, request.maxTokens);
    if (this.#streams.has(request.id)) throw new ApiError("invalid_request", `request id '${request.id}' is in use`);
    if (this.#streams.size >= this.#capacity) {
      throw new ApiError("overloaded", "the service is at capacity; try again shortly", { retryAfter: 1 });
    }
  }

  #checkPrompt(prompt: readonly number[], maxTokens: number): void {
    const { context_length: contextLength, vocab_size: vocabSize } = this.info.architecture;
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
      case "event": {
        const queue = this.#streams.get(message.id);
        queue?.push(message.event);
        if (message.event.type === "finished") {
          this.#streams.delete(message.id);
          queue?.end();
        }
        break;
      }
      case "probed":
        this.#probes.get(message.id)?.resolve(message.exits);
        this.#probes.delete(message.id);
        break;
      case "failed":
        this.#fail(message.id, new ApiError("internal_error", `the engine failed: ${message.message}`));
        break;
    }
  }

  #fail(id: string, error: ApiError): void {
    this.#streams.get(id)?.fail(error);
    this.#streams.delete(id);
    this.#probes.get(id)?.reject(error);
    this.#probes.delete(id);
  }

  #die(error: Error): void {
    if (this.#state === "dead") return;
    if (this.#state === "running") this.#died.resolve(error);
    this.#state = "dead";
    const apiError = new ApiError("internal_error", "the engine has stopped", { cause: error });
    for (const id of [...this.#streams.keys(), ...this.#probes.keys()]) this.#fail(id, apiError);
  }
}
