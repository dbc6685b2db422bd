/// <reference lib="esnext.float16" />
import { type QuantizedInt4, quantizeInt4 } from "./quantize-int4.ts";
import { blocksPerRow, DEFAULT_BLOCK_SIZE } from "./stored-bytes.ts";

const MAX_CODE = 15;
/** Starting steps as shares of the range; below 1 a few outliers are clipped for a finer step. */
const SHRINK = [1, 0.96, 0.92, 0.87, 0.81];
/** Rounds of choosing codes and fitting step and minimum to them, for every starting step. */
const FITS = 3;
/** Rounds with the best pair and its step rounded as stored. */
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
export class AffineFit {
  step = 0;
  zeroPoint = 0;
  /** What the zero point leaves of the minimum. */
  offset = 0;
  #minimum = 0;
  /** Least-squares pair of the codes that `#fit` was last given. */
  #fittedStep = 0;
  #fittedMinimum = 0;
  readonly #x: Float64Array;
  readonly #half = new Float16Array(1);

  constructor(block: number) {
    this.#x = new Float64Array(block);
  }

  get scale(): number {
    return this.step;
  }

  /** Takes the offset as it is stored in place of the one that was found; the codes follow it. */
  settle(offset: number): void {
    this.offset = offset;
    this.#minimum = offset - this.zeroPoint * this.step;
  }

  /** Code of a value under the pair that was found. */
  code(value: number): number {
    return this.step === 0 ? this.zeroPoint : code((value - this.#minimum) / this.step + 0.5);
  }

  run(values: Float32Array, start: number): void {
    const x = this.#x;
    let low = Number.POSITIVE_INFINITY;
    let high = Number.NEGATIVE_INFINITY;
    let sum = 0;
    let squares = 0;
    for (let i = 0; i < x.length; i++) {
      const value = values[start + i] ?? 0;
      x[i] = value;
      if (value < low) low = value;
      if (value > high) high = value;
      sum += value;
      squares += value * value;
    }
    const perfect = (squares - (sum * sum) / x.length) * (1 - 1e-9);
    this.#keep(0, (low + high) / 2);
    if (low === high) return;
    let bestScore = 0;
    let bestStep = 0;
    let bestMinimum = 0;
    for (const share of SHRINK) {
      const step = ((high - low) * share) / MAX_CODE;
      let score = this.#fit(step, (low + high - step * MAX_CODE) / 2);
      for (let i = 1; i < FITS; i++) score = this.#fit(this.#fittedStep, this.#fittedMinimum);
      if (score <= bestScore) continue;
      bestScore = score;
      bestStep = this.#fittedStep;
      bestMinimum = this.#fittedMinimum;
      if (score >= perfect) break;
    }
    this.#refine(bestStep, bestMinimum);
  }

  /** Writes the block's codes, two per byte, low nibble first. */
  pack(data: Uint8Array, at: number): void {
    const x = this.#x;
    const inverse = this.step === 0 ? 0 : 1 / this.step;
    const shift = 0.5 - this.#minimum * inverse;
    for (let i = 0; i < x.length; i += 2) {
      const even = code((x[i] ?? 0) * inverse + shift);
      data[at + (i >> 1)] = even | (code((x[i + 1] ?? 0) * inverse + shift) << 4);
    }
  }

  #keep(step: number, minimum: number): void {
    this.step = step;
    this.#minimum = minimum;
    this.zeroPoint = step === 0 ? 0 : Math.min(MAX_CODE, Math.max(0, Math.round(-minimum / step)));
    this.offset = minimum + this.zeroPoint * step;
  }

  /** Alternates between choosing codes for a stored step and refitting the pair, while the error falls. */
  #refine(startStep: number, startMinimum: number): void {
    let step = this.#round(startStep);
    let minimum = startMinimum;
    let best = Number.POSITIVE_INFINITY;
    for (let i = 0; i < REFINEMENTS && step > 0; i++) {
      const error = this.#error(step, minimum);
      if (error >= best) return;
      best = error;
      this.#keep(step, minimum);
      if (error === 0) return;
      this.#fit(step, minimum);
      step = this.#round(this.#fittedStep);
      minimum = this.#fittedMinimum;
    }
  }

  /**
   * Least squares of x = step · q + minimum over the codes that the given pair chooses.
   * @returns by how much the fit lowers the squared error from that of the mean.
   */
  #fit(step: number, minimum: number): number {
    const x = this.#x;
    const inverse = 1 / step;
    const shift = 0.5 - minimum * inverse;
    let sumQ = 0;
    let sumX = 0;
    let sumQQ = 0;
    let sumQX = 0;
    for (let i = 0; i < x.length; i++) {
      const value = x[i] ?? 0;
      const q = code(value * inverse + shift);
      sumQ += q;
      sumX += value;
      sumQQ += q * q;
      sumQX += q * value;
    }
    const spread = x.length * sumQQ - sumQ * sumQ;
    const slope = spread === 0 ? 0 : (x.length * sumQX - sumQ * sumX) / spread;
    this.#fittedStep = slope;
    this.#fittedMinimum = (sumX - slope * sumQ) / x.length;
    return (slope * slope * spread) / x.length;
  }

  #error(step: number, minimum: number): number {
    const x = this.#x;
    const inverse = 1 / step;
    const shift = 0.5 - minimum * inverse;
    let error = 0;
    for (let i = 0; i < x.length; i++) {
      const value = x[i] ?? 0;
      const difference = value - (code(value * inverse + shift) * step + minimum);
      error += difference * difference;
    }
    return error;
  }

  #round(value: number): number {
    this.#half[0] = value;
    return this.#half[0] ?? 0;
  }
}

/** The nearest code to a position that one half was added to. */
function code(shifted: number): number {
  return shifted <= 0 ? 0 : shifted >= MAX_CODE + 1 ? MAX_CODE : shifted | 0;
}
