/// <reference lib="esnext.float16" />

/** The largest finite half-precision value. */
export const FLOAT16_MAX = 65504;

/**
 * Widens bfloat16 bit patterns to float32, exactly.
 * @param out float32 of the same length; allocated when absent.
 */
export function bfloat16ToFloat32(bits: Uint16Array, out: Float32Array = new Float32Array(bits.length)): Float32Array {
  const words = new Uint32Array(out.buffer, out.byteOffset, out.length);
  for (let i = 0; i < bits.length; i++) words[i] = (bits[i] ?? 0) << 16;
  return out;
}

/** The largest finite float32 that rounds to a finite bfloat16. */
export const BFLOAT16_MAX = 3.396177326406364e38;

/** Views bytes as half-precision values. Bytes at an odd address are copied first. */
export function asFloat16(bytes: Uint8Array): Float16Array {
  const aligned = bytes.byteOffset % 2 === 0 ? bytes : bytes.slice();
  return new Float16Array(aligned.buffer, aligned.byteOffset, aligned.byteLength >> 1);
}

/** The bytes behind a typed array, without a copy. */
export function bytesOf(array: ArrayBufferView): Uint8Array {
  return new Uint8Array(array.buffer, array.byteOffset, array.byteLength);
}

/** Rounds finite float32 values to bfloat16 bit patterns, to nearest, ties to even; what is too large becomes infinity. */
export function float32ToBfloat16(values: Float32Array): Uint16Array {
  const words = new Uint32Array(values.buffer, values.byteOffset, values.length);
  return Uint16Array.from(words, (word) => (word + 0x7fff + ((word >>> 16) & 1)) >>> 16);
}
