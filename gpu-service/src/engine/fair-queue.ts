import type { EnginePriority } from "./types.ts";

/** How much more an interactive request of the same weight gets: enough to go first, not enough to starve a batch. */
const INTERACTIVE_SHARE = 16;

interface Waiting<T> {
  item: T;
  id: string;
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
  readonly #lastTag = new Map<string, number>();
  #virtualTime = 0;
  #arrivals = 0;

  get size(): number {
    return this.#waiting.length;
  }

  add(id: string, priority: EnginePriority, item: T): void {
    const share = shareOf(priority);
    const flow = `${priority.class}/${priority.weight}`;
    const tag = Math.max(this.#virtualTime, this.#lastTag.get(flow) ?? 0) + 1 / share;
    this.#lastTag.set(flow, tag);
    this.#insert({ id, item, tag, arrival: this.#arrivals++ });
  }

  /** Puts one back that was admitted before: at the head of its flow, but behind whom it made way for. */
  putBack(id: string, priority: EnginePriority, item: T): void {
    this.#insert({ id, item, tag: this.#virtualTime + 1 / shareOf(priority), arrival: -1 });
  }

  /** The next one that is ready, left where it is. */
  peek(ready: (item: T) => boolean): T | undefined {
    return this.#waiting.find(({ item }) => ready(item))?.item;
  }

  /** Takes one out because its turn has come. */
  take(id: string): void {
    const tag = this.#waiting.find((waiting) => waiting.id === id)?.tag ?? 0;
    if (!this.remove(id)) return;
    this.#virtualTime = Math.max(this.#virtualTime, tag);
    if (this.#waiting.length === 0) this.#lastTag.clear();
  }

  remove(id: string): boolean {
    const at = this.#waiting.findIndex((waiting) => waiting.id === id);
    if (at < 0) return false;
    this.#waiting.splice(at, 1);
    return true;
  }

  #insert(entry: Waiting<T>): void {
    const at = this.#waiting.findIndex(
      ({ tag, arrival }) => tag > entry.tag || (tag === entry.tag && arrival > entry.arrival),
    );
    if (at < 0) this.#waiting.push(entry);
    else this.#waiting.splice(at, 0, entry);
  }
}

function shareOf({ class: name, weight }: EnginePriority): number {
  return weight * (name === "interactive" ? INTERACTIVE_SHARE : 1);
}
