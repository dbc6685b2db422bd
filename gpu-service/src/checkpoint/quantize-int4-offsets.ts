/// <reference lib="esnext.float16" />
import { type QuantizedInt4, quantizeInt4 } from "./quantize-int4.ts";
import { blocksPerRow, DEFAULT_BLOCK_SIZE } from "./stored-bytes.ts";

const MAX_CODE = 15;
/** Starting steps as shares of the range; below 1 a few outliers are clipped for a finer step. */
const SHRINK = [1, 0.96, 0.92, 0.87, 0.81];
/** Rounds of choosing codes and refitting step and offset. */
const REFINEMENTS = 3;

/**
 * Quantises [n, k] row-major values as value = (q − zero point) · scale + offset, with the offsets as int4 columns behind the
 * row (see `offsetColumns` in shared). The zero point takes the offset to within half a step; what is left is small, so four
 * bits for it are plenty. Values that lie on an affine grid of 16 levels per block, as GGUF's Q4_1 stores them, come back as
 * they were but for the rounding of the offset's last bits.
 * @param k a multiple of `block`
 * @returns the layout of `quantizeInt4` for a [n, k + k/block] matrix
 */
export function quantizeInt4WithOffsets(
  values: Float32Array,
  n: number,
  k: number,
  block = DEFAULT_BLOCK_SIZE,
): QuantizedInt4 {
  const inner = k / block;
  const outer = blocksPerRow(inner, block);
  const blocks = inner + outer;
  const data = new Uint8Array((n * blocks * block) / 2);
  const scales = new Float16Array(n * blocks);
  const zeroPointStride = Math.ceil(blocks / 2);
  const zeroPoints = new Uint8Array(n * zeroPointStride);
  const offsets = new Float32Array(inner);
  const fit = new AffineFit(block);
  const setZeroPoint = (row: number, index: number, zeroPoint: number) => {
    const at = row * zeroPointStride + (index >> 1);
    zeroPoints[at] = (zeroPoints[at] ?? 0) | (zeroPoint << ((index & 1) * 4));
  };
  for (let row = 0; row < n; row++) {
    for (let b = 0; b < inner; b++) {
      fit.run(values, row * k + b * block);
      const index = row * blocks + b;
      scales[index] = fit.step;
      setZeroPoint(row, b, fit.zeroPoint);
      offsets[b] = fit.offset;
      fit.pack(data, (index * block) / 2);
    }
    const tail = quantizeInt4(offsets, 1, inner, block);
    data.set(tail.data, ((row * blocks + inner) * block) / 2);
    scales.set(tail.scales, row * blocks + inner);
    for (let b = 0; b < outer; b++)
      setZeroPoint(row, inner + b, ((tail.zeroPoints[b >> 1] ?? 0) >> ((b & 1) * 4)) & 15);
  }
  return { data, scales, zeroPoints };
}

/** The step and minimum with the smallest squared error that a small search finds for one block: x ≈ step · q + minimum. */
class AffineFit {
  step = 0;
  zeroPoint = 0;
  /** What the zero point leaves of the minimum. */
  offset = 0;
  #minimum = 0;
  readonly #x: Float64Array;
  readonly #half = new Float16Array(1);

  constructor(block: number) {
    this.#x = new Float64Array(block);
  }

  run(values: Float32Array, start: number): void {
    const x = this.#x;
    let low = Number.POSITIVE_INFINITY;
    let high = Number.NEGATIVE_INFINITY;
    for (let i = 0; i < x.length; i++) {
      const value = values[start + i] ?? 0;
      x[i] = value;
      low = Math.min(low, value);
      high = Math.max(high, value);
    }
    this.#keep(0, low);
    let best = this.#error(0, low);
    for (const share of SHRINK) {
      let step = this.#round(((high - low) * share) / MAX_CODE);
      let minimum = (low + high - step * MAX_CODE) / 2;
      for (let round = 0; round <= REFINEMENTS && step > 0; round++) {
        const error = this.#error(step, minimum);
        if (error < best) {
          best = error;
          this.#keep(step, minimum);
        }
        if (best === 0) return;
        [step, minimum] = this.#refit(step, minimum);
      }
    }
  }

  /** Writes the block's codes, two per byte, low nibble first. */
  pack(data: Uint8Array, at: number): void {
    for (let i = 0; i < this.#x.length; i += 2) {
      const even = this.#code(i, this.step, this.#minimum);
      data[at + (i >> 1)] = even | (this.#code(i + 1, this.step, this.#minimum) << 4);
    }
  }

  #keep(step: number, minimum: number): void {
    this.step = step;
    this.#minimum = minimum;
    this.zeroPoint = step === 0 ? 0 : Math.min(MAX_CODE, Math.max(0, Math.round(-minimum / step)));
    this.offset = minimum + this.zeroPoint * step;
  }

  /** Least squares of x = step · q + minimum over the codes that the given pair yields; the step is rounded as stored. */
  #refit(step: number, minimum: number): [number, number] {
    const x = this.#x;
    let sumQ = 0;
    let sumX = 0;
    let sumQQ = 0;
    let sumQX = 0;
    for (let i = 0; i < x.length; i++) {
      const q = this.#code(i, step, minimum);
      const value = x[i] ?? 0;
      sumQ += q;
      sumX += value;
      sumQQ += q * q;
      sumQX += q * value;
    }
    const spread = x.length * sumQQ - sumQ * sumQ;
    if (spread === 0) return [0, minimum];
    const refit = this.#round((x.length * sumQX - sumQ * sumX) / spread);
    return [refit, (sumX - refit * sumQ) / x.length];
  }

  #error(step: number, minimum: number): number {
    const x = this.#x;
    let error = 0;
    for (let i = 0; i < x.length; i++) {
      const difference = (x[i] ?? 0) - (this.#code(i, step, minimum) * step + minimum);
      error += difference * difference;
    }
    return error;
  }

  #code(i: number, step: number, minimum: number): number {
    if (step === 0) return 0;
    const position = ((this.#x[i] ?? 0) - minimum) / step + 0.5;
    return position <= 0 ? 0 : position >= MAX_CODE + 1 ? MAX_CODE : position | 0;
  }

  #round(value: number): number {
    this.#half[0] = value;
    return this.#half[0] ?? 0;
  }
}
