import { type BlockLayout, DEFAULT_BLOCK_SIZE, offsetColumns, type WeightFormat } from "@fathom/shared";
import type { TensorBytes } from "./dequantize.ts";
import { bytesOf, FLOAT16_MAX } from "./float16.ts";
import { quantizeInt4 } from "./quantize-int4.ts";
import { quantizeInt4WithOffsets } from "./quantize-int4-offsets.ts";
import { quantizeInt8 } from "./quantize-int8.ts";

/**
 * Encodes whole rows of a matrix (or a vector, as one row) in a weight format.
 * @param values row-major [rows, k].
 * @throws RangeError when a value is not finite or, outside fp32, does not fit float16.
 */
export function encodeRows(format: WeightFormat, values: Float32Array, k: number, layout: BlockLayout): TensorBytes {
  const blockSize = layout.block_size ?? DEFAULT_BLOCK_SIZE;
  // Scales are float16 too.
  requireRange(values, format === "fp32" ? Number.MAX_VALUE : FLOAT16_MAX);
  const rows = values.length / k;
  switch (format) {
    case "fp32":
      return { data: bytesOf(values) };
    case "fp16":
      return { data: bytesOf(Float16Array.from(values)) };
    case "int8": {
      const { data, scales } = quantizeInt8(values, rows, k, blockSize);
      return { data, scales: bytesOf(scales) };
    }
    case "int4": {
      const quantize = offsetColumns(layout, format, k) > 0 ? quantizeInt4WithOffsets : quantizeInt4;
      const { data, scales, zeroPoints } = quantize(values, rows, k, blockSize);
      return { data, scales: bytesOf(scales), zeroPoints };
    }
  }
}

function requireRange(values: Float32Array, limit: number): void {
  for (let i = 0; i < values.length; i++) {
    // Negated so that NaN fails too.
    if (!(Math.abs(values[i] ?? 0) <= limit)) throw new RangeError(`value ${values[i]} cannot be stored`);
  }
}
