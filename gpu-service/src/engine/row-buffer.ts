/** A growing list of rows of equal width, float32, in one piece of memory. */
export class RowBuffer {
  readonly #width: number;
  #values = new Float32Array(0);
  #count = 0;

  constructor(width: number) {
    this.#width = width;
  }

  get count(): number {
    return this.#count;
  }

  /** All rows, a view that the next change makes stale. */
  get values(): Float32Array {
    return this.#values.subarray(0, this.#count * this.#width);
  }

  /** Appends whole rows. */
  push(rows: Float32Array): void {
    const size = this.#count * this.#width;
    if (size + rows.length > this.#values.length) {
      const grown = new Float32Array(Math.max(size + rows.length, 2 * size));
      grown.set(this.#values.subarray(0, size));
      this.#values = grown;
    }
    this.#values.set(rows, size);
    this.#count += rows.length / this.#width;
  }

  /** Keeps the first `count` rows. */
  truncate(count: number): void {
    this.#count = Math.min(this.#count, Math.max(0, count));
  }
}
