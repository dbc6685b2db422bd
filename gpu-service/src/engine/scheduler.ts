import { FairQueue } from "./fair-queue.ts";
import type { KvNeed } from "./kv-layout.ts";
import type { EnginePriority } from "./types.ts";

/** A request as the scheduler sees it. */
export interface SchedulerRequest {
  id: string;
  /** Positions to run before the first token can be decided: the prompt's. */
  promptLength: number;
  /** Layers that hold its K/V. */
  depth: number;
  priority: EnginePriority;
  /** Positions that a step may add at most while decoding: one, or a draft's length and one. */
  maxStep: number;
}

/** What the next step runs. Everything else waits. */
export interface Plan {
  /** Requests that are admitted now, in order. */
  admitted: string[];
  /** Requests that lose their K/V; they are waiting again. */
  preempted: string[];
  /** Positions `from` to `to` (exclusive) of one prompt; `last` when a token can be decided behind them. */
  prefill: { id: string; from: number; to: number; last: boolean } | undefined;
  /** Requests that decode. */
  decode: string[];
}

export interface SchedulerOptions {
  /** Requests that hold K/V at the same time. */
  maxRunning: number;
  /** Prompt positions per step: large enough for the matrix kernels, small enough not to hold up running streams. */
  chunk: number;
  /** Whether the K/V of these requests fits the budget. */
  fits: (needs: readonly KvNeed[]) => boolean;
  /** Positions of a prompt whose K/V is at hand already when it is admitted, fewer than all. Default none. */
  reusable?: (id: string) => number;
}

interface Row extends SchedulerRequest {
  /** Positions to run before the next token: the prompt's, after a preemption also those of the answer so far. */
  target: number;
  /** Positions run. */
  done: number;
  paused: boolean;
  /** Steps in which another prompt was prefilled instead. */
  passedOver: number;
  /** Order of admission: who came last goes first when memory runs out. */
  admission: number;
  /** Times that it lost its K/V. */
  preemptions: number;
}

/** Batch requests stand back while an interactive prompt is prefilled, but for one step in so many. */
const BATCH_TURN = 8;
/** Times that a batch request begins anew for the sake of others; after that it is treated as they are, so that it ends. */
const MAKES_WAY = 4;

/**
 * Decides what a step runs: who is admitted, whose prompt goes on by one chunk, who decodes, and who gives up memory. Pure: no
 * tensors, no clock, no I/O. Time is counted in steps, memory in what `fits` says.
 */
export class Scheduler {
  readonly #options: SchedulerOptions;
  readonly #waiting = new FairQueue<Row>();
  readonly #queued = new Map<string, Row>();
  readonly #running = new Map<string, Row>();
  #admissions = 0;
  #steps = 0;

  constructor(options: SchedulerOptions) {
    this.#options = options;
  }

  get running(): number {
    return this.#running.size;
  }

  get waiting(): number {
    return this.#waiting.size;
  }

  get paused(): number {
    return [...this.#running.values()].filter(({ paused }) => paused).length;
  }

  /** Queues a request. */
  add(request: SchedulerRequest): void {
    const start = { done: 0, paused: false, passedOver: 0, admission: 0, preemptions: 0 };
    const row: Row = { ...request, target: request.promptLength, ...start };
    this.#queued.set(row.id, row);
    this.#waiting.add(row.id, row.priority, row);
  }

  /** Forgets a request, wherever it is. */
  remove(id: string): void {
    this.#running.delete(id);
    if (this.#queued.delete(id)) this.#waiting.remove(id);
  }

  /** A paused request keeps its K/V, unless others need the memory, and runs no step. */
  pause(id: string, paused: boolean): void {
    const row = this.#running.get(id) ?? this.#queued.get(id);
    if (row) row.paused = paused;
  }

  /** Says how many positions a decoding request has now, the next token's input included. */
  advance(id: string, length: number): void {
    const row = this.#running.get(id);
    if (row) {
      row.done = length - 1;
      row.target = length;
    }
  }

  /** The next step, or undefined when there is nothing to do. A prefill counts as run once returned. */
  next(): Plan | undefined {
    const held = new Set(this.#running.keys());
    const losers: string[] = [];
    const newcomers = this.#admit(losers);
    this.#makeRoom(losers);
    const admitted = newcomers.filter((id) => this.#running.has(id));
    const preempted = losers.filter((id) => held.has(id));
    const prefill = this.#choosePrefill();
    const interactive = prefill !== undefined && this.#running.get(prefill.id)?.priority.class === "interactive";
    const standBack = interactive && this.#steps % BATCH_TURN !== 0;
    const decode = [...this.#running.values()]
      .filter((row) => decodes(row) && row.id !== prefill?.id)
      .filter((row) => !(standBack && row.priority.class === "batch"))
      .map(({ id }) => id);
    if (!prefill && decode.length === 0 && admitted.length === 0 && preempted.length === 0) return undefined;
    this.#steps++;
    return { admitted, preempted, prefill, decode };
  }

  #admit(preempted: string[]): string[] {
    const admitted: string[] = [];
    for (;;) {
      const row = this.#waiting.peek(({ id, paused }) => !paused && !preempted.includes(id));
      if (!row) break;
      if (!this.#hasRoomFor(row) && !this.#yieldTo(row, preempted)) break;
      this.#waiting.take(row.id);
      this.#queued.delete(row.id);
      row.admission = this.#admissions++;
      row.done = Math.min(this.#options.reusable?.(row.id) ?? 0, row.target - 1);
      row.passedOver = 0;
      this.#running.set(row.id, row);
      admitted.push(row.id);
    }
    return admitted;
  }

  #hasRoomFor(row: Row): boolean {
    // The first one always goes: the engine takes no request whose K/V alone is above the budget.
    if (this.#running.size === 0) return true;
    return this.#running.size < this.#options.maxRunning && this.#options.fits(this.#needs(row));
  }

  /** Lets the latest batch requests make way for an interactive one. */
  #yieldTo(row: Row, preempted: string[]): boolean {
    if (row.priority.class !== "interactive") return false;
    const victims = [...this.#running.values()].filter(makesWay).sort((x, y) => y.admission - x.admission);
    const taken: Row[] = [];
    for (const victim of victims) {
      if (this.#hasRoomFor(row)) break;
      this.#running.delete(victim.id);
      taken.push(victim);
    }
    const yields = this.#hasRoomFor(row);
    // Whose room is not needed after all, or not enough, keeps it.
    for (const one of taken.toReversed()) {
      this.#running.set(one.id, one);
      if (yields && !this.#hasRoomFor(row)) this.#running.delete(one.id);
    }
    for (const one of taken) if (!this.#running.has(one.id)) this.#preempt(one, preempted);
    return yields;
  }

  /** Preempts until what the next step needs fits: paused requests first, then batch ones, then the latest. */
  #makeRoom(preempted: string[]): void {
    while (this.#running.size > 1 && !this.#options.fits(this.#needs())) {
      const [victim] = [...this.#running.values()].sort(
        (x, y) =>
          Number(y.paused) - Number(x.paused) || Number(makesWay(y)) - Number(makesWay(x)) || y.admission - x.admission,
      );
      if (!victim) return;
      this.#running.delete(victim.id);
      this.#preempt(victim, preempted);
    }
  }

  #preempt(row: Row, preempted: string[]): void {
    preempted.push(row.id);
    row.done = 0;
    row.preemptions++;
    this.#queued.set(row.id, row);
    this.#waiting.putBack(row.id, row.priority, row);
  }

  /** Room that the running requests need in the next step, and `newcomer` with them. */
  #needs(newcomer?: Row): KvNeed[] {
    const rows = newcomer ? [...this.#running.values(), newcomer] : [...this.#running.values()];
    return rows.map(({ depth, target, maxStep }) => ({ depth, rows: target + maxStep }));
  }

  /** The prompt with the least left, but one that was passed over counts as shorter by a chunk each time. */
  #choosePrefill(): Plan["prefill"] {
    const { chunk } = this.#options;
    let best: Row | undefined;
    let bestScore = Number.POSITIVE_INFINITY;
    const candidates = [...this.#running.values()].filter((row) => !row.paused && !decodes(row));
    for (const row of candidates) {
      const batch = row.priority.class === "batch" ? BATCH_TURN : 0;
      const score = Math.ceil((row.target - row.done) / chunk) + batch - row.passedOver;
      if (score < bestScore) {
        best = row;
        bestScore = score;
      }
    }
    if (!best) return undefined;
    for (const row of candidates) if (row !== best) row.passedOver++;
    const from = best.done;
    const to = Math.min(prefillEnd(best), from + chunk);
    best.done = to;
    best.passedOver = 0;
    return { id: best.id, from, to, last: to === best.target };
  }
}

function makesWay({ priority, preemptions }: Row): boolean {
  return priority.class === "batch" && preemptions < MAKES_WAY;
}

/** A prompt runs to its end; what a preempted request had answered runs up to its newest token, which decodes as ever. */
function prefillEnd({ target, promptLength }: Row): number {
  return target > promptLength ? target - 1 : target;
}

/** A request decodes when all but its newest position was run. */
function decodes(row: Row): boolean {
  return !row.paused && row.done === row.target - 1 && row.target > row.promptLength;
}
