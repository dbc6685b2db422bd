import type { Executor } from "./executor.ts";
import type { KvCache } from "./kv-cache.ts";
import type { HostMessage, WorkerMessage } from "./protocol.ts";
import { sampleToken } from "./sampler.ts";
import { Scheduler, type Step } from "./scheduler.ts";
import type { EngineFinishReason, EngineRequest } from "./types.ts";

/** Prompt positions run in one step: large enough for the matrix kernels, small enough not to hold up running streams. */
const PREFILL_CHUNK = 128;

interface Row {
  request: EngineRequest;
  cache: KvCache;
  tokens: number[];
  submittedAt: number;
  startedAt: number | undefined;
  prefilledAt: number | undefined;
  firstTokenAt: number | undefined;
  lastTokenAt: number | undefined;
}

type Probe = Extract<HostMessage, { type: "probe" }>;

/** Milliseconds on the clock that host and worker share. */
function now(): number {
  return performance.timeOrigin + performance.now();
}

/** Steps all requests of one engine: one scheduler step at a time, messages are taken in between. */
export class EngineLoop {
  readonly #executor: Executor;
  readonly #post: (message: WorkerMessage) => void;
  readonly #scheduler: Scheduler;
  readonly #rows = new Map<string, Row>();
  readonly #probes: Probe[] = [];
  #wake: (() => void) | undefined;
  #closed = false;

  constructor(executor: Executor, maxConcurrent: number, post: (message: WorkerMessage) => void) {
    this.#executor = executor;
    this.#post = post;
    this.#scheduler = new Scheduler({ maxRunning: maxConcurrent, chunk: PREFILL_CHUNK });
  }

  /** Takes a message from the host. */
  receive(message: HostMessage): void {
    switch (message.type) {
      case "generate":
        this.#admit(message.request, message.submittedAt);
        break;
      case "cancel": {
        const row = this.#rows.get(message.id);
        if (row) this.#finish(row, "cancelled");
        break;
      }
      case "probe":
        this.#probes.push(message);
        break;
      case "close":
        this.#closed = true;
        for (const row of [...this.#rows.values()]) this.#finish(row, "cancelled");
        break;
    }
    this.#wake?.();
  }

  /** Runs until `close`. */
  async run(): Promise<void> {
    while (!this.#closed) {
      const probe = this.#probes.shift();
      if (probe) {
        await this.#runProbe(probe);
        continue;
      }
      const step = this.#scheduler.next();
      if (step) await this.#runStep(step);
      else await this.#idle();
    }
    await this.#executor.close();
  }

  #admit(request: EngineRequest, submittedAt: number): void {
    this.#rows.set(request.id, {
      request,
      cache: this.#executor.newCache(request.depth),
      tokens: [...request.prompt],
      submittedAt,
      startedAt: undefined,
      prefilledAt: undefined,
      firstTokenAt: undefined,
      lastTokenAt: undefined,
    });
    this.#scheduler.add(request.id, request.prompt.length);
  }

  #idle(): Promise<void> {
    return new Promise((resolve) => {
      this.#wake = () => {
        this.#wake = undefined;
        resolve();
      };
    });
  }

  async #runStep(step: Step): Promise<void> {
    const row = this.#rows.get(step.id);
    if (!row) return;
    const { request } = row;
    try {
      row.startedAt ??= now();
      const exits = await this.#executor.forward(row.cache, row.tokens.slice(step.from, step.to), request.depth);
      const exit = exits.at(-1);
      if (!step.samples || !exit) return;
      const logits = await this.#executor.logits(exit);
      row.prefilledAt ??= now();
      // Cancelled while the step ran: the row has had its terminal event.
      if (this.#rows.get(step.id) !== row) return;
      this.#accept(row, sampleToken(logits, request.sampling, row.tokens.length - request.prompt.length));
    } catch (error) {
      this.#forget(step.id);
      this.#post({ type: "failed", id: step.id, message: error instanceof Error ? error.message : String(error) });
    }
  }

  #accept(row: Row, token: number): void {
    const { request } = row;
    if (request.stopTokenIds.includes(token)) {
      this.#finish(row, "stop");
      return;
    }
    row.tokens.push(token);
    row.lastTokenAt = now();
    row.firstTokenAt ??= row.lastTokenAt;
    this.#event(request.id, { type: "token", token, layers: request.depth });
    if (row.tokens.length - request.prompt.length >= request.maxTokens) this.#finish(row, "length");
  }

  #finish(row: Row, reason: EngineFinishReason): void {
    const end = now();
    const started = row.startedAt ?? end;
    const first = row.firstTokenAt ?? end;
    this.#forget(row.request.id);
    this.#event(row.request.id, {
      type: "finished",
      reason,
      timing: {
        queueMs: started - row.submittedAt,
        prefillMs: (row.prefilledAt ?? end) - started,
        timeToFirstTokenMs: first - row.submittedAt,
        decodeMs: (row.lastTokenAt ?? first) - first,
        totalMs: end - row.submittedAt,
      },
    });
  }

  async #runProbe({ id, prompt, depths }: Probe): Promise<void> {
    try {
      const deepest = Math.max(...depths);
      const outputs = await this.#executor.forward(this.#executor.newCache(deepest), prompt, deepest);
      const exits = [];
      for (const exit of outputs) {
        if (depths.includes(exit.depth)) exits.push({ depth: exit.depth, logits: await this.#executor.logits(exit) });
      }
      this.#post({ type: "probed", id, exits });
    } catch (error) {
      this.#post({ type: "failed", id, message: error instanceof Error ? error.message : String(error) });
    }
  }

  #forget(id: string): void {
    this.#rows.delete(id);
    this.#scheduler.remove(id);
  }

  #event(id: string, event: Extract<WorkerMessage, { type: "event" }>["event"]): void {
    this.#post({ type: "event", id, event });
  }
}
