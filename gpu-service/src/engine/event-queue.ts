/** Items that wait before the producer is asked to pause, and those left when it may go on. */
const HIGH_WATER = 64;
const LOW_WATER = 16;

/** What the producer of a queue wants to know. */
export interface EventQueueListener {
  /** The consumer left the loop before the end. */
  onReturn: () => void;
  /** The consumer lags behind, or has caught up. */
  onPause?: (paused: boolean) => void;
}

/**
 * An async iterable that its producer pushes into. Items that nobody takes wait in memory; a producer that pauses when asked to
 * is bounded by what it has under way.
 */
export class EventQueue<T> implements AsyncIterable<T> {
  readonly #listener: EventQueueListener;
  readonly #items: T[] = [];
  #waiting: PromiseWithResolvers<IteratorResult<T>> | undefined;
  #paused = false;
  #ended = false;
  #error: Error | undefined;

  constructor(listener: EventQueueListener) {
    this.#listener = listener;
  }

  push(item: T): void {
    if (this.#ended) return;
    if (this.#waiting) {
      this.#waiting.resolve({ value: item, done: false });
      this.#waiting = undefined;
      return;
    }
    this.#items.push(item);
    if (this.#items.length >= HIGH_WATER) this.#pause(true);
  }

  end(): void {
    this.#ended = true;
    this.#waiting?.resolve({ value: undefined, done: true });
    this.#waiting = undefined;
  }

  /** Ends with an error, thrown once the items before it are taken. */
  fail(error: Error): void {
    this.#ended = true;
    if (this.#waiting) this.#waiting.reject(error);
    else this.#error = error;
    this.#waiting = undefined;
  }

  [Symbol.asyncIterator](): AsyncIterator<T> {
    return {
      next: () => this.#next(),
      return: () => {
        if (!this.#ended) this.#listener.onReturn();
        this.#ended = true;
        this.#items.length = 0;
        return Promise.resolve({ value: undefined, done: true });
      },
    };
  }

  #next(): Promise<IteratorResult<T>> {
    const item = this.#items.shift();
    if (this.#items.length <= LOW_WATER) this.#pause(false);
    if (item !== undefined) return Promise.resolve({ value: item, done: false });
    if (this.#error) {
      const error = this.#error;
      this.#error = undefined;
      return Promise.reject(error);
    }
    if (this.#ended) return Promise.resolve({ value: undefined, done: true });
    this.#waiting = Promise.withResolvers();
    return this.#waiting.promise;
  }

  #pause(paused: boolean): void {
    if (paused === this.#paused || this.#ended) return;
    this.#paused = paused;
    this.#listener.onPause?.(paused);
  }
}
