/** Rows of a fresh cache; it doubles from there, so that a short answer does not pay for the whole context. */
const INITIAL_ROWS = 128;

/**
 * K and V of one sequence, per layer, float32 [rows, kv_heads, head_dim]: append-only and contiguous, so that the first
 * `length` rows are one subarray which ONNX Runtime reads in place.
 */
export class KvCache {
  readonly #rowSize: number;
  readonly #maxRows: number;
  readonly #keys: Float32Array<ArrayBuffer>[];
  readonly #values: Float32Array<ArrayBuffer>[];
  #capacity: number;
  #length = 0;

  /**
   * @param layers layers that hold K/V: the depth at which the sequence runs
   * @param rowSize values per row: kv_heads · head_dim
   * @param maxRows rows at most: the context length
   */
  constructor(layers: number, rowSize: number, maxRows: number) {
    this.#rowSize = rowSize;
    this.#maxRows = maxRows;
    this.#capacity = Math.min(INITIAL_ROWS, maxRows);
    const fresh = () => Array.from({ length: layers }, () => new Float32Array(this.#capacity * rowSize));
    this.#keys = fresh();
    this.#values = fresh();
  }

  /** Positions whose rows are committed. */
  get length(): number {
    return this.#length;
  }

  /** Bytes held, used or not. */
  get bytes(): number {
    return this.#keys.length * 2 * this.#capacity * this.#rowSize * Float32Array.BYTES_PER_ELEMENT;
  }

  /** The committed key rows of a layer, a view. */
  keys(layer: number): Float32Array {
    return this.#view(this.#keys, layer);
  }

  /** The committed value rows of a layer, a view. */
  values(layer: number): Float32Array {
    return this.#view(this.#values, layer);
  }

  /**
   * Makes room for `rows` more positions.
   * @throws RangeError beyond the context.
   */
  reserve(rows: number): void {
    const needed = this.#length + rows;
    if (needed > this.#maxRows) throw new RangeError(`${needed} positions do not fit a context of ${this.#maxRows}`);
    if (needed <= this.#capacity) return;
    this.#capacity = Math.min(this.#maxRows, Math.max(needed, this.#capacity * 2));
    for (const buffers of [this.#keys, this.#values]) {
      for (const [layer, buffer] of buffers.entries()) {
        const grown = new Float32Array(this.#capacity * this.#rowSize);
        grown.set(buffer.subarray(0, this.#length * this.#rowSize));
        buffers[layer] = grown;
      }
    }
  }

  /** Writes a layer's new rows behind the committed ones; they count after `commit`. */
  write(layer: number, keys: Float32Array, values: Float32Array): void {
    const at = this.#length * this.#rowSize;
    this.#buffer(this.#keys, layer).set(keys, at);
    this.#buffer(this.#values, layer).set(values, at);
  }

  /** Commits `rows` positions once every layer has written them. */
  commit(rows: number): void {
    this.#length += rows;
  }

  #view(buffers: readonly Float32Array[], layer: number): Float32Array {
    return this.#buffer(buffers, layer).subarray(0, this.#length * this.#rowSize);
  }

  #buffer(buffers: readonly Float32Array[], layer: number): Float32Array {
    const buffer = buffers[layer];
    if (!buffer) throw new RangeError(`layer ${layer} holds no K/V here`);
    return buffer;
  }
}
