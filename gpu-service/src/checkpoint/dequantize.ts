import { type BlockLayout, DEFAULT_BLOCK_SIZE, offsetColumns, type WeightFormat } from "@fathom/shared";
import { asFloat16 } from "./float16.ts";
import { blocksPerRow } from "./stored-bytes.ts";

/** The bytes of one stored tensor, as its ranges hold them. */
export interface TensorBytes {
  data: Uint8Array;
  scales?: Uint8Array | undefined;
  zeroPoints?: Uint8Array | undefined;
}

/**
 * Turns stored bytes back into float32 values, row-major, without the padding of a last block.
 * @param shape the tensor's shape; [N, K] for int4 and int8.
 */
export function dequantize(
  format: WeightFormat,
  shape: readonly number[],
  bytes: TensorBytes,
  layout: BlockLayout,
): Float32Array {
  const blockSize = layout.block_size ?? DEFAULT_BLOCK_SIZE;
  switch (format) {
    case "fp32": {
      const { data } = bytes;
      const aligned = data.byteOffset % 4 === 0 ? data : data.slice();
      return new Float32Array(aligned.buffer, aligned.byteOffset, aligned.byteLength >> 2);
    }
    case "fp16":
      return Float32Array.from(asFloat16(bytes.data));
    case "int8":
      return dequantizeBlocks(8, shape, bytes, blockSize);
    case "int4": {
      const [n = 0, k = 0] = shape;
      const offsets = offsetColumns(layout, format, k);
      if (offsets === 0) return dequantizeBlocks(4, shape, bytes, blockSize);
      return addOffsets(dequantizeBlocks(4, [n, k + offsets], bytes, blockSize), n, k, blockSize);
    }
  }
}

/** Folds a row's offset columns into the blocks before them. */
function addOffsets(extended: Float32Array, n: number, k: number, blockSize: number): Float32Array {
  const stride = k + k / blockSize;
  const values = new Float32Array(n * k);
  for (let row = 0; row < n; row++) {
    for (let i = 0; i < k; i++) {
      const offset = extended[row * stride + k + Math.floor(i / blockSize)] ?? 0;
      values[row * k + i] = (extended[row * stride + i] ?? 0) + offset;
    }
  }
  return values;
}

function dequantizeBlocks(bits: 4 | 8, shape: readonly number[], bytes: TensorBytes, blockSize: number): Float32Array {
  const [n = 0, k = 0] = shape;
  const blocks = blocksPerRow(k, blockSize);
  const zeroPointStride = Math.ceil(blocks / 2);
  const { data, zeroPoints } = bytes;
  const scales = asFloat16(bytes.scales ?? new Uint8Array(0));
  const values = new Float32Array(n * k);
  for (let row = 0; row < n; row++) {
    for (let b = 0; b < blocks; b++) {
      const scale = scales[row * blocks + b] ?? 0;
      const packed = zeroPoints?.[row * zeroPointStride + (b >> 1)];
      const zeroPoint = packed === undefined ? 1 << (bits - 1) : (packed >> ((b & 1) * 4)) & 15;
      const length = Math.min(blockSize, k - b * blockSize);
      const from = (row * blocks + b) * blockSize;
      const to = row * k + b * blockSize;
      for (let i = 0; i < length; i++) {
        const at = from + i;
        const q = bits === 8 ? (data[at] ?? 0) : ((data[at >> 1] ?? 0) >> ((at & 1) * 4)) & 15;
        values[to + i] = (q - zeroPoint) * scale;
      }
    }
  }
  return values;
}
