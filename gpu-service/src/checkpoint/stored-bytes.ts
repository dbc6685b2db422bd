import type { WeightFormat } from "@fathom/shared";

/** Values that share one scale (and, in int4, one zero point). */
export const DEFAULT_BLOCK_SIZE = 32;

/** Lengths in bytes of a stored tensor's ranges; 0 where the format has no such range. */
export interface StoredBytes {
  data: number;
  scales: number;
  /** As the writer stores int4: with zero points. */
  zeroPoints: number;
}

/** Blocks in one row of `k` values; the last one may be padded. */
export function blocksPerRow(k: number, blockSize: number): number {
  return Math.ceil(k / blockSize);
}

/** Bytes that a tensor of `shape` takes in `format`. int4 and int8 need a shape of [N, K]. */
export function storedBytes(format: WeightFormat, shape: readonly number[], blockSize: number): StoredBytes {
  const values = shape.reduce((product, size) => product * size, 1);
  const n = shape[0] ?? 0;
  const blocks = blocksPerRow(shape[1] ?? 0, blockSize);
  switch (format) {
    case "fp32":
      return { data: values * 4, scales: 0, zeroPoints: 0 };
    case "fp16":
      return { data: values * 2, scales: 0, zeroPoints: 0 };
    case "int8":
      return { data: n * blocks * blockSize, scales: n * blocks * 2, zeroPoints: 0 };
    case "int4":
      return { data: n * blocks * (blockSize / 2), scales: n * blocks * 2, zeroPoints: n * Math.ceil(blocks / 2) };
  }
}

/** Whether MatMulNBits can run with this block size. */
export function isBlockSize(value: number): boolean {
  return Number.isInteger(value) && value >= 16 && (value & (value - 1)) === 0;
}
