/// <reference lib="esnext.float16" />
import { blocksPerRow, DEFAULT_BLOCK_SIZE } from "./stored-bytes.ts";

const ZERO_POINT = 128;

export interface QuantizedInt8 {
  /** uint8 [N, ceil(K/block), block]. */
  data: Uint8Array;
  /** float16 [N, ceil(K/block)]. */
  scales: Float16Array;
}

/**
 * Quantises [n, k] row-major values block by block, symmetrically around zero point 128: value = (q − 128) · scale.
 * The scale is rounded to float16 first, so q is chosen for the scale that will be used.
 */
export function quantizeInt8(values: Float32Array, n: number, k: number, block = DEFAULT_BLOCK_SIZE): QuantizedInt8 {
  const blocks = blocksPerRow(k, block);
  const data = new Uint8Array(n * blocks * block).fill(ZERO_POINT);
  // Rounds and clamps on assignment.
  const codes = new Uint8ClampedArray(data.buffer);
  const scales = new Float16Array(n * blocks);
  for (let row = 0; row < n; row++) {
    for (let b = 0; b < blocks; b++) {
      const start = row * k + b * block;
      const end = Math.min(start + block, (row + 1) * k);
      let largest = 0;
      for (let i = start; i < end; i++) largest = Math.max(largest, Math.abs(values[i] ?? 0));
      const index = row * blocks + b;
      scales[index] = largest / 127;
      const scale = scales[index];
      if (!scale) continue;
      const inverse = 1 / scale;
      let at = index * block;
      for (let i = start; i < end; i++) {
        codes[at++] = (values[i] ?? 0) * inverse + ZERO_POINT;
      }
    }
  }
  return { data, scales };
}
