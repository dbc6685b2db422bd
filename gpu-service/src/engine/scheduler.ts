/** One unit of work: a chunk of a prompt, or one new token. Positions `from` to `to` (exclusive) are run. */
export interface Step {
  id: string;
  kind: "prefill" | "decode";
  from: number;
  to: number;
  /** The step ends with a token to sample: the last prompt chunk, and every decode. */
  samples: boolean;
}

interface Row {
  id: string;
  promptLength: number;
  /** Positions already run. */
  done: number;
}

/**
 * Decides which row runs next. Pure: no tensors, no clock, no I/O. Rows take turns; a prompt is prefilled in chunks of
 * `chunk` positions, so that a long one holds the others up by one chunk at most.
 */
export class Scheduler {
  readonly #maxRunning: number;
  readonly #chunk: number;
  readonly #waiting: Row[] = [];
  readonly #running: Row[] = [];
  #turn = 0;

  constructor(options: { maxRunning: number; chunk: number }) {
    this.#maxRunning = options.maxRunning;
    this.#chunk = options.chunk;
  }

  get running(): number {
    return this.#running.length;
  }

  get waiting(): number {
    return this.#waiting.length;
  }

  /** Queues a row; rows are admitted in the order in which they came. */
  add(id: string, promptLength: number): void {
    this.#waiting.push({ id, promptLength, done: 0 });
  }

  /** Forgets a row, wherever it is. */
  remove(id: string): void {
    const queued = this.#waiting.findIndex((row) => row.id === id);
    if (queued >= 0) this.#waiting.splice(queued, 1);
    const running = this.#running.findIndex((row) => row.id === id);
    if (running < 0) return;
    this.#running.splice(running, 1);
    if (running < this.#turn) this.#turn--;
  }

  /** The next step, or undefined when there is nothing to do. The step counts as run once returned. */
  next(): Step | undefined {
    while (this.#running.length < this.#maxRunning) {
      const row = this.#waiting.shift();
      if (!row) break;
      this.#running.push(row);
    }
    if (this.#turn >= this.#running.length) this.#turn = 0;
    const row = this.#running[this.#turn];
    if (!row) return undefined;
    this.#turn++;
    const from = row.done;
    const prefill = from < row.promptLength;
    const to = prefill ? Math.min(row.promptLength, from + this.#chunk) : from + 1;
    row.done = to;
    return { id: row.id, kind: prefill ? "prefill" : "decode", from, to, samples: to >= row.promptLength };
  }
}
