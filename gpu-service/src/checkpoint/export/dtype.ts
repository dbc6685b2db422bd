import { BFLOAT16_MAX, bytesOf, FLOAT16_MAX, float32ToBfloat16 } from "../float16.ts";

/** The number formats that an export can have. */
export const EXPORT_DTYPES = ["fp32", "fp16", "bf16"] as const;
export type ExportDtype = (typeof EXPORT_DTYPES)[number];

interface DtypeFacts {
  /** As a safetensors header says it. */
  safetensors: string;
  /** As `config.json` says it. */
  transformers: string;
  /** Per value. */
  bytes: number;
  /** The largest magnitude that can be stored. */
  max: number;
}

const FACTS: Record<ExportDtype, DtypeFacts> = {
  fp32: { safetensors: "F32", transformers: "float32", bytes: 4, max: Number.MAX_VALUE },
  fp16: { safetensors: "F16", transformers: "float16", bytes: 2, max: FLOAT16_MAX },
  bf16: { safetensors: "BF16", transformers: "bfloat16", bytes: 2, max: BFLOAT16_MAX },
};

export function dtypeFacts(dtype: ExportDtype): DtypeFacts {
  return FACTS[dtype];
}

/**
 * Encodes values, little-endian, rounding to nearest even.
 * @throws RangeError when a value is not finite or too large for the format.
 */
export function encodeValues(values: Float32Array, dtype: ExportDtype): Uint8Array {
  const { max } = FACTS[dtype];
  for (const value of values) {
    // Negated so that NaN fails too.
    if (!(Math.abs(value) <= max)) throw new RangeError(`value ${value} cannot be stored as ${dtype}`);
  }
  switch (dtype) {
    case "fp32":
      return bytesOf(values);
    case "fp16":
      return bytesOf(Float16Array.from(values));
    case "bf16":
      return bytesOf(float32ToBfloat16(values));
  }
}
