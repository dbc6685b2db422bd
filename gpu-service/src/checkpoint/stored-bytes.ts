import { type BlockLayout, DEFAULT_BLOCK_SIZE, offsetColumns, type WeightFormat } from "@fathom/shared";

export { DEFAULT_BLOCK_SIZE };

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

/** Blocks in one stored row of `k` values, those of its offset columns included. */
export function storedBlocks(layout: BlockLayout, format: WeightFormat, k: number): number {
  const blockSize = layout.block_size ?? DEFAULT_BLOCK_SIZE;
  return blocksPerRow(k, blockSize) + blocksPerRow(offsetColumns(layout, format, k), blockSize);
}

/** Bytes that a tensor of `shape` takes in `format`. int4 and int8 need a shape of [N, K]. */
export function storedBytes(format: WeightFormat, shape: readonly number[], layout: BlockLayout): StoredBytes {
  const blockSize = layout.block_size ?? DEFAULT_BLOCK_SIZE;
  const values = shape.reduce((product, size) => product * size, 1);
  const n = shape[0] ?? 0;
  const blocks = storedBlocks(layout, format, shape[1] ?? 0);
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
