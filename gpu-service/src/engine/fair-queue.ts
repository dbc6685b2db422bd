import type { EnginePriority } from "./types.ts";

/** How much more an interactive request of the same weight gets: enough to go first, not enough to starve a batch. */
const INTERACTIVE_SHARE = 16;

interface Waiting<T> {
  item: T;
  id: string;
  flow: string;
  /** Virtual finish time: the smallest goes next. */
  tag: number;
  arrival: number;
}

/**
 * Requests that wait for admission, by weighted fair queueing (Demers, Keshav and Shenker 1989) with admissions as the unit of
 * work: every flow, a class with a weight, advances by 1/share per admission, so that interactive requests go first and nobody
 * waits for ever.
 */
export class FairQueue<T> {
  readonly #waiting: Waiting<T>[] = [];
  #virtualTime = 0;
  #arrivals = 0;
  #returns = 0;

  get size(): number {
    return this.#waiting.length;
  }

  add(id: string, priority: EnginePriority, item: T): void {
    const flow = flowOf(priority);
    const last = this.#waiting.findLast((waiting) => waiting.flow === flow)?.tag ?? 0;
    const tag = Math.max(this.#virtualTime, last) + 1 / shareOf(priority);
    this.#insert({ id, flow, item, tag, arrival: this.#arrivals++ });
  }

  /** Puts one back that was admitted before: at the head of its flow, but behind whom it made way for. */
  putBack(id: string, priority: EnginePriority, item: T): void {
    const flow = flowOf(priority);
    const first = this.#waiting.find((waiting) => waiting.flow === flow)?.tag ?? Number.POSITIVE_INFINITY;
    const tag = Math.min(this.#virtualTime + 1 / shareOf(priority), first);
    this.#insert({ id, flow, item, tag, arrival: -++this.#returns });
  }

  /** The next one that is ready, left where it is. */
  peek(ready: (item: T) => boolean): T | undefined {
    return this.#waiting.find(({ item }) => ready(item))?.item;
  }

  /** Takes one out because its turn has come. */
  take(id: string): void {
    const at = this.#waiting.findIndex((waiting) => waiting.id === id);
    const [taken] = at < 0 ? [] : this.#waiting.splice(at, 1);
    if (taken) this.#virtualTime = Math.max(this.#virtualTime, taken.tag);
  }

  /** Takes one out unserved: those behind it in its flow move up. */
  remove(id: string): boolean {
    const at = this.#waiting.findIndex((waiting) => waiting.id === id);
    const [gone] = at < 0 ? [] : this.#waiting.splice(at, 1);
    if (!gone) return false;
    let free = gone.tag;
    for (const waiting of this.#waiting.slice(at)) {
      if (waiting.flow === gone.flow) [waiting.tag, free] = [free, waiting.tag];
    }
    this.#waiting.sort(byTag);
    return true;
  }

  #insert(entry: Waiting<T>): void {
    this.#waiting.push(entry);
    this.#waiting.sort(byTag);
  }
}

function byTag(x: Waiting<unknown>, y: Waiting<unknown>): number {
  return x.tag - y.tag || x.arrival - y.arrival;
}

function flowOf({ class: name, weight }: EnginePriority): string {
  return `${name}/${weight}`;
}

function shareOf({ class: name, weight }: EnginePriority): number {
  return weight * (name === "interactive" ? INTERACTIVE_SHARE : 1);
}
