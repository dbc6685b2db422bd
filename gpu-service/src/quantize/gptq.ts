/// <reference lib="esnext.float16" />
import type { TensorBytes } from "../checkpoint/dequantize.ts";
import { bytesOf } from "../checkpoint/float16.ts";
import { BlockSearch } from "../checkpoint/quantize-int4.ts";
import { AffineFit, quantizeInt4WithOffsets } from "../checkpoint/quantize-int4-offsets.ts";
import { blocksPerRow } from "../checkpoint/stored-bytes.ts";

export interface GptqOptions {
  /** Values that share a scale. */
  block: number;
  /** Blocks carry an offset, in columns of their own behind the row (see `offsetColumns`). */
  offsets: boolean;
}

export interface GptqResult {
  bytes: TensorBytes;
  /** What the codes stand for, float32 [n, k]. */
  values: Float32Array;
}

/** Scale, zero point and offset of a block, and the codes under them. */
interface BlockFit {
  readonly scale: number;
  readonly zeroPoint: number;
  readonly offset: number;
  run(values: Float32Array, start: number, length: number): void;
  code(value: number): number;
}

/** The four-bit grid of a row's offsets, as `quantizeInt4` stores them behind the row. */
interface OffsetGrid {
  scale: number;
  zeroPoint: number;
}

/**
 * Quantises [n, k] row-major values to int4, column by column, and takes the error of every column into account in those that
 * follow, so that the products with the inputs behind `factor` change least (GPTQ, Frantar et al. 2023, algorithm 1). A block's
 * scale and zero point are chosen when its first column comes, from what the weights have become by then; its offset is rounded
 * as stored before its codes are chosen, on the grid that plain rounding finds for the row, so that the codes make up for it too.
 * @param factor U of `inverseFactor` for the inputs' Gram matrix, [k, k]
 */
export function gptq(
  values: Float32Array,
  n: number,
  k: number,
  factor: Float32Array,
  { block, offsets }: GptqOptions,
): GptqResult {
  const inner = blocksPerRow(k, block);
  const withOffsets = offsets && k % block === 0;
  const packer = new Packer(n, k, block, withOffsets);
  const affine = withOffsets ? new AffineFit(block) : undefined;
  const fit: BlockFit = affine ?? new BlockSearch(block);
  const result = new Float32Array(n * k);
  const w = values.slice();
  const errors = new Float64Array(block);
  const grids = affine ? offsetGrids(values, n, k, block) : [];
  const gridsPerRow = blocksPerRow(inner, block);
  // All rows of a block in turn: its rows of the factor stay in the cache.
  for (let b = 0; b < inner; b++) {
    const start = b * block;
    const end = Math.min(k, start + block);
    for (let row = 0; row < n; row++) {
      const first = row * k;
      fit.run(w, first + start, end - start);
      const grid = grids[row * gridsPerRow + Math.floor(b / block)];
      if (affine && grid) {
        const code = nearestCode(fit.offset, grid);
        packer.offset(row, b, code, grid);
        affine.settle((code - grid.zeroPoint) * grid.scale);
      }
      packer.block(row, b, fit);
      for (let j = start; j < end; j++) {
        const value = w[first + j] as number;
        const code = fit.code(value);
        packer.code(row, j, code);
        const stored = (code - fit.zeroPoint) * fit.scale + fit.offset;
        result[first + j] = stored;
        const error = (value - stored) / (factor[j * k + j] as number);
        errors[j - start] = error;
        for (let m = j + 1, u = j * k + j + 1; m < end; m++, u++) {
          w[first + m] = (w[first + m] as number) - error * (factor[u] as number);
        }
      }
      if (end < k) feedBack(w.subarray(first + end, first + k), errors, factor, start * k + end, k);
    }
  }
  return { bytes: packer.bytes(), values: result };
}

/** Takes the errors of a block, in fours, off the rest of its row; `at` is where in the factor that rest begins. */
function feedBack(rest: Float32Array, errors: Float64Array, factor: Float32Array, at: number, k: number): void {
  for (let j = 0; j < errors.length; j += 4) {
    const [e0 = 0, e1 = 0, e2 = 0, e3 = 0] = [errors[j], errors[j + 1], errors[j + 2], errors[j + 3]];
    if (e0 === 0 && e1 === 0 && e2 === 0 && e3 === 0) continue;
    const u0 = at + j * k;
    const [u1, u2, u3] = [u0 + k, u0 + 2 * k, u0 + 3 * k];
    for (let m = 0; m < rest.length; m++) {
      const low = e0 * (factor[u0 + m] as number) + e1 * (factor[u1 + m] as number);
      const high = e2 * (factor[u2 + m] as number) + e3 * (factor[u3 + m] as number);
      rest[m] = (rest[m] as number) - (low + high);
    }
  }
}

/** The grids that plain rounding gives every row's offsets, one for every `block` of them. */
function offsetGrids(values: Float32Array, n: number, k: number, block: number): OffsetGrid[] {
  const inner = blocksPerRow(k, block);
  const outer = blocksPerRow(inner, block);
  const { scales, zeroPoints } = quantizeInt4WithOffsets(values, n, k, block);
  const stride = Math.ceil((inner + outer) / 2);
  return Array.from({ length: n * outer }, (_, i) => {
    const row = Math.floor(i / outer);
    const at = inner + (i % outer);
    const packed = zeroPoints[row * stride + (at >> 1)] ?? 0;
    return { scale: scales[row * (inner + outer) + at] ?? 0, zeroPoint: (packed >> ((at & 1) * 4)) & 15 };
  });
}

function nearestCode(value: number, { scale, zeroPoint }: OffsetGrid): number {
  return scale === 0 ? zeroPoint : Math.max(0, Math.min(15, Math.floor(value / scale + zeroPoint + 0.5)));
}

/** Puts codes, scales and zero points where `quantizeInt4` and `quantizeInt4WithOffsets` would. */
class Packer {
  readonly #block: number;
  readonly #inner: number;
  readonly #blocks: number;
  readonly #data: Uint8Array;
  readonly #scales: Float16Array;
  readonly #zeroPoints: Uint8Array;

  constructor(n: number, k: number, block: number, withOffsets: boolean) {
    this.#block = block;
    this.#inner = blocksPerRow(k, block);
    this.#blocks = this.#inner + (withOffsets ? blocksPerRow(this.#inner, block) : 0);
    this.#data = new Uint8Array((n * this.#blocks * block) / 2);
    this.#scales = new Float16Array(n * this.#blocks);
    this.#zeroPoints = new Uint8Array(n * Math.ceil(this.#blocks / 2));
  }

  block(row: number, index: number, { scale, zeroPoint }: BlockFit): void {
    this.#scales[row * this.#blocks + index] = scale;
    this.#zeroPoint(row, index, zeroPoint);
    if (index !== this.#inner - 1) return;
    // What may lie behind the last value of the row stands for zero.
    const last = (row * this.#blocks + index) * this.#block;
    for (let i = last; i < last + this.#block; i++) this.#set(i, zeroPoint);
  }

  code(row: number, column: number, code: number): void {
    this.#set(row * this.#blocks * this.#block + column, code);
  }

  offset(row: number, index: number, code: number, { scale, zeroPoint }: OffsetGrid): void {
    const first = row * this.#blocks + this.#inner;
    const block = Math.floor(index / this.#block);
    if (index % this.#block === 0) {
      this.#scales[first + block] = scale;
      this.#zeroPoint(row, this.#inner + block, zeroPoint);
      // What lies behind the last offset stands for zero.
      for (let i = 0; i < this.#block; i++) this.#set((first + block) * this.#block + i, zeroPoint);
    }
    this.#set(first * this.#block + index, code);
  }

  bytes(): TensorBytes {
    return { data: this.#data, scales: bytesOf(this.#scales), zeroPoints: this.#zeroPoints };
  }

  #zeroPoint(row: number, index: number, zeroPoint: number): void {
    const at = row * Math.ceil(this.#blocks / 2) + (index >> 1);
    const shift = (index & 1) * 4;
    this.#zeroPoints[at] = ((this.#zeroPoints[at] ?? 0) & ~(15 << shift)) | (zeroPoint << shift);
  }

  #set(index: number, code: number): void {
    const shift = (index & 1) * 4;
    this.#data[index >> 1] = ((this.#data[index >> 1] ?? 0) & ~(15 << shift)) | (code << shift);
  }
}
