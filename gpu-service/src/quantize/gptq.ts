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
  const w = new Float32Array(k);
  const errors = new Float64Array(block);
  for (let row = 0; row < n; row++) {
    w.set(values.subarray(row * k, (row + 1) * k));
    const grids = affine ? offsetGrids(w, k, block) : [];
    for (let b = 0; b < inner; b++) {
      const start = b * block;
      const end = Math.min(k, start + block);
      fit.run(w, start, end - start);
      const grid = grids[Math.floor(b / block)];
      if (affine && grid) {
        const code = nearestCode(fit.offset, grid);
        packer.offset(row, b, code, grid);
        affine.settle((code - grid.zeroPoint) * grid.scale);
      }
      packer.block(row, b, fit);
      for (let j = start; j < end; j++) {
        const value = w[j] as number;
        const code = fit.code(value);
        packer.code(row, j, code);
        const stored = (code - fit.zeroPoint) * fit.scale + fit.offset;
        result[row * k + j] = stored;
        const error = (value - stored) / (factor[j * k + j] as number);
        errors[j - start] = error;
        for (let m = j + 1, u = j * k + j + 1; m < end; m++, u++) {
          w[m] = (w[m] as number) - error * (factor[u] as number);
        }
      }
      // The rest of the row, once per block: the factor's rows stay in the cache.
      for (let j = start; j < end; j++) {
        const error = errors[j - start] as number;
        if (error === 0) continue;
        for (let m = end, u = j * k + end; m < k; m++, u++) w[m] = (w[m] as number) - error * (factor[u] as number);
      }
    }
  }
  return { bytes: packer.bytes(), values: result };
}

/** The grids that plain rounding gives a row's offsets, one for every `block` of them. */
function offsetGrids(row: Float32Array, k: number, block: number): OffsetGrid[] {
  const inner = blocksPerRow(k, block);
  const { scales, zeroPoints } = quantizeInt4WithOffsets(row, 1, k, block);
  return Array.from({ length: blocksPerRow(inner, block) }, (_, i) => {
    const at = inner + i;
    return { scale: scales[at] ?? 0, zeroPoint: ((zeroPoints[at >> 1] ?? 0) >> ((at & 1) * 4)) & 15 };
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
