import { runVisits } from "./batch-step.ts";
import { CostModel } from "./cost-model.ts";
import { EngineRow, now } from "./engine-row.ts";
import type { Executor } from "./executor.ts";
import { bytesFor, type KvNeed } from "./kv-layout.ts";
import { BLOCK, PrefixCache } from "./prefix-cache.ts";
import { probeExits, scoreExits } from "./probe.ts";
import type { HostMessage, WorkerMessage } from "./protocol.ts";
import { type Plan, Scheduler } from "./scheduler.ts";
import { Sequence } from "./sequence.ts";
import { MAX_DRAFT } from "./speculation.ts";
import { StatsRecorder } from "./stats-recorder.ts";
import type { EngineEvent, EngineFinishReason, EngineRequest, EngineStats } from "./types.ts";
import { type Decision, PrefillVisit, TokenVisit, type Visit } from "./visit.ts";

/** Prompt positions run in one step: large enough for the matrix kernels, small enough not to hold up running streams. */
export const PREFILL_CHUNK = 128;
/** Share of the K/V budget that prefixes may take when nothing else wants it. */
const PREFIX_SHARE = 0.5;
/** Milliseconds between two reports of the figures. */
const STATS_INTERVAL = 100;

type Inspection = Extract<HostMessage, { type: "probe" | "score" }>;

export interface EngineLoopOptions {
  maxConcurrent: number;
  /** Bytes of K/V at most. */
  kvBudget: number;
}

/** Steps all requests of one engine: one plan of the scheduler at a time, messages are taken in between. */
export class EngineLoop {
  readonly #executor: Executor;
  readonly #kvBudget: number;
  readonly #post: (message: WorkerMessage) => void;
  readonly #scheduler: Scheduler;
  readonly #prefixes: PrefixCache;
  readonly #cost = new CostModel();
  readonly #recorder = new StatsRecorder();
  readonly #rows = new Map<string, EngineRow>();
  readonly #inspections: Inspection[] = [];
  /** Requests that ended while a step was running, which may still write their K/V. */
  #released: string[] | undefined;
  #events: { id: string; event: EngineEvent }[] = [];
  #statsAt = 0;
  #wake: (() => void) | undefined;
  #closed = false;

  constructor(
    executor: Executor,
    { maxConcurrent, kvBudget }: EngineLoopOptions,
    post: (message: WorkerMessage) => void,
  ) {
    this.#executor = executor;
    this.#kvBudget = kvBudget;
    this.#post = post;
    this.#prefixes = new PrefixCache(executor.sharesPrefixes ? kvBudget * PREFIX_SHARE : 0);
    this.#scheduler = new Scheduler({
      maxRunning: maxConcurrent,
      chunk: PREFILL_CHUNK,
      fits: (needs) => this.#bytesFor(needs) <= kvBudget,
      reusable: (id) => this.#reusable(id),
    });
  }

  /** Takes a message from the host. */
  receive(message: HostMessage): void {
    switch (message.type) {
      case "generate":
        this.#add(message.request, message.submittedAt);
        break;
      case "cancel": {
        const row = this.#rows.get(message.id);
        if (row) this.#finish(row, "cancelled");
        break;
      }
      case "pause":
        this.#scheduler.pause(message.id, message.paused);
        break;
      case "probe":
      case "score":
        this.#inspections.push(message);
        break;
      case "close":
        this.#closed = true;
        for (const row of [...this.#rows.values()]) this.#finish(row, "cancelled");
        break;
    }
    this.#flush();
    this.#wake?.();
  }

  /** Runs until `close`. */
  async run(): Promise<void> {
    while (!this.#closed) {
      this.#endOverdue();
      const inspection = this.#inspections.shift();
      if (inspection) {
        await this.#inspect(inspection);
        continue;
      }
      const plan = this.#scheduler.next();
      if (plan) await this.#step(plan);
      this.#flush();
      this.#report(plan === undefined);
      if (!plan) await this.#idle();
    }
    this.#flush();
    await this.#executor.close();
  }

  stats(): EngineStats {
    let pendingRows = 0;
    for (const { sequence } of this.#rows.values()) pendingRows += sequence.pendingRows;
    return this.#recorder.snapshot({
      running: this.#scheduler.running,
      waiting: this.#scheduler.waiting,
      paused: this.#scheduler.paused,
      kvBytes: this.#executor.kvBytes + this.#prefixes.bytes,
      kvBudgetBytes: this.#kvBudget,
      prefixCacheBytes: this.#prefixes.bytes,
      pendingRows,
    });
  }

  #add(request: EngineRequest, submittedAt: number): void {
    const { segments, architecture } = this.#executor;
    const count = segments.filter(({ from }) => from < request.depth).length;
    this.#rows.set(request.id, new EngineRow(new Sequence(request, count, architecture.hidden_size), submittedAt));
    this.#scheduler.add({
      id: request.id,
      promptLength: request.prompt.length,
      depth: request.depth,
      priority: request.priority ?? { class: "interactive", weight: 1 },
      maxStep: request.policy?.type === "speculative" ? MAX_DRAFT + 1 : 1,
    });
  }

  /** Waits for a message, or for the next deadline. */
  #idle(): Promise<void> {
    return new Promise((resolve) => {
      let next = Number.POSITIVE_INFINITY;
      for (const { deadline } of this.#rows.values()) next = Math.min(next, deadline);
      const timer = Number.isFinite(next) ? setTimeout(() => this.#wake?.(), Math.max(1, next - now())) : undefined;
      this.#wake = () => {
        clearTimeout(timer);
        this.#wake = undefined;
        resolve();
      };
    });
  }

  #endOverdue(): void {
    const time = now();
    for (const row of [...this.#rows.values()]) if (row.deadline <= time) this.#finish(row, "timeout");
  }

  async #step(plan: Plan): Promise<void> {
    this.#recorder.steps++;
    for (const id of plan.preempted) this.#preempt(id);
    for (const id of plan.admitted) this.#admit(id);
    const visits = this.#visits(plan);
    this.#released = [];
    try {
      this.#makeRoom(visits);
      await runVisits(this.#executor, visits, this.#cost);
    } catch (error) {
      const message = error instanceof Error ? error.message : String(error);
      for (const { sequence } of visits) this.#fail(sequence.id, message);
    }
    const released = this.#released;
    this.#released = undefined;
    for (const id of released) this.#executor.release(id);
    for (const visit of visits) this.#settle(visit);
  }

  #preempt(id: string): void {
    const row = this.#rows.get(id);
    if (!row) return;
    row.preempt();
    this.#executor.release(id);
    this.#recorder.preemptions++;
  }

  #admit(id: string): void {
    const row = this.#rows.get(id);
    if (!row) return;
    const { sequence } = row;
    const { depth } = sequence.request;
    row.startedAt ??= now();
    this.#executor.reserve(id, depth, sequence.tokens.length + 1);
    if (!this.#executor.sharesPrefixes) return;
    const { length, blocks } = this.#knownPrefix(sequence);
    let at = 0;
    for (const { kv, depth: deep } of blocks) {
      this.#executor.writeKv(id, deep, at, kv);
      at += BLOCK;
    }
    sequence.restart(length);
    if (row.preemptions === 0) {
      row.cachedTokens = length;
      this.#recorder.promptTokens += sequence.request.prompt.length;
      this.#recorder.prefixCacheQueries += sequence.request.prompt.length;
      this.#recorder.prefixCacheHits += length;
    }
  }

  /** Positions of a request's tokens whose K/V can be copied. */
  #reusable(id: string): number {
    const row = this.#rows.get(id);
    return row && this.#executor.sharesPrefixes ? this.#knownPrefix(row.sequence).length : 0;
  }

  /** The last position always runs, because its output is wanted. */
  #knownPrefix({ tokens, request }: Sequence) {
    return this.#prefixes.find(tokens.slice(0, -1), request.depth, request.cacheSalt);
  }

  #visits({ prefill, decode }: Plan): Visit[] {
    const visits: Visit[] = [];
    for (const id of decode) {
      const row = this.#rows.get(id);
      if (row) visits.push(row.visit(decode.length, this.#cost));
    }
    const row = prefill && this.#rows.get(prefill.id);
    if (row) {
      const { sequence } = row;
      visits.push(prefill.last ? new TokenVisit(sequence, prefill.to, false) : new PrefillVisit(sequence, prefill.to));
    }
    return visits;
  }

  /** Room for what the visits write, at the expense of the prefixes. */
  #makeRoom(visits: readonly Visit[]): void {
    for (const { sequence, end } of visits) this.#executor.reserve(sequence.id, sequence.request.depth, end);
    if (this.#executor.kvBytes + this.#prefixes.bytes > this.#kvBudget) this.#executor.compact();
    if (!this.#executor.sharesPrefixes) return;
    const rest = this.#kvBudget - this.#executor.kvBytes;
    this.#prefixes.limit = Math.max(0, Math.min(this.#kvBudget * PREFIX_SHARE, rest));
  }

  #settle(visit: Visit): void {
    const { sequence } = visit;
    const row = this.#rows.get(sequence.id);
    // Cancelled while the step ran: the row has had its terminal event.
    if (row?.sequence !== sequence) return;
    for (const decision of visit.decisions) {
      row.prefilledAt ??= now();
      if (this.#accept(row, decision)) return;
    }
    if (visit.decisions.length > 0) this.#scheduler.advance(sequence.id, row.length);
  }

  /** @returns whether the answer is complete */
  #accept(row: EngineRow, { token, layers, reason, confidence }: Decision): boolean {
    const { sequence } = row;
    const { request } = sequence;
    if (request.stopTokenIds.includes(token)) {
      this.#finish(row, "stop");
      return true;
    }
    const first = sequence.generated === 0;
    sequence.tokens.push(token);
    row.lastTokenAt = now();
    row.firstTokenAt ??= row.lastTokenAt;
    this.#recorder.token(layers, reason);
    this.#event(request.id, { type: "token", token, layers, confidence });
    if (sequence.generated >= request.maxTokens) {
      this.#finish(row, "length");
      return true;
    }
    // Others with the same beginning may come before this answer is complete.
    if (first) this.#remember(sequence);
    return false;
  }

  /** Keeps the K/V of what was run to the full depth of the request. */
  #remember(sequence: Sequence): void {
    if (!this.#executor.sharesPrefixes) return;
    const { depth, cacheSalt } = sequence.request;
    const complete = sequence.computed(0) - sequence.pendingRows;
    const read = (from: number, to: number) => this.#executor.readKv(sequence.id, depth, from, to);
    this.#prefixes.add(sequence.tokens.slice(0, complete), depth, read, cacheSalt);
  }

  #finish(row: EngineRow, reason: EngineFinishReason): void {
    const { id } = row.sequence;
    const account = row.account();
    this.#recorder.draftProposed += account.draft?.proposed ?? 0;
    this.#recorder.draftAccepted += account.draft?.accepted ?? 0;
    if (reason === "stop" || reason === "length") this.#remember(row.sequence);
    this.#forget(id);
    this.#event(id, { type: "finished", reason, timing: row.timing(now()), account });
  }

  #fail(id: string, message: string): void {
    if (!this.#rows.has(id)) return;
    this.#forget(id);
    this.#flush();
    this.#post({ type: "failed", id, message });
  }

  #forget(id: string): void {
    this.#rows.delete(id);
    this.#scheduler.remove(id);
    if (this.#released) this.#released.push(id);
    else this.#executor.release(id);
  }

  async #inspect(message: Inspection): Promise<void> {
    const { id } = message;
    try {
      if (message.type === "probe") {
        this.#post({ type: "probed", id, exits: await probeExits(this.#executor, message.prompt, message.depths) });
      } else {
        this.#post({ type: "scored", id, exits: await scoreExits(this.#executor, message) });
      }
    } catch (error) {
      this.#post({ type: "failed", id, message: error instanceof Error ? error.message : String(error) });
    }
  }

  #bytesFor(needs: readonly KvNeed[]): number {
    return bytesFor(this.#executor.architecture, this.#executor.segments, needs);
  }

  #event(id: string, event: EngineEvent): void {
    this.#events.push({ id, event });
  }

  #flush(): void {
    if (this.#events.length === 0) return;
    const events = this.#events;
    this.#events = [];
    this.#post({ type: "events", events });
  }

  #report(idle: boolean): void {
    const time = performance.now();
    if (!idle && time - this.#statsAt < STATS_INTERVAL) return;
    this.#statsAt = time;
    this.#post({ type: "stats", stats: this.stats() });
  }
}
