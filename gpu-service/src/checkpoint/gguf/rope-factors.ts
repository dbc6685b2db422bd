import type { Architecture } from "@fathom/shared";
import { CheckpointError } from "../checkpoint-error.ts";
import type { GgufFile } from "./gguf-file.ts";

type Llama3 = NonNullable<Architecture["rope"]["llama3"]>;

/** Tensor with one divisor per RoPE frequency; converters store it instead of the parameters of llama3 scaling. */
export const ROPE_FACTORS_TENSOR = "rope_freqs.weight";

/** What all published models with llama3 scaling use; only the factor differs (8 in Llama 3.1, 32 in 3.2). */
const FAMILY = { low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 };

/**
 * Recovers the parameters of llama3 RoPE scaling from its divisors.
 * @returns nothing when the file has none.
 * @throws CheckpointError when the divisors are not those of llama3 scaling.
 */
export async function readLlama3Scaling(
  file: GgufFile,
  headDim: number,
): Promise<Pick<Architecture["rope"], "llama3">> {
  if (!file.tensors.has(ROPE_FACTORS_TENSOR)) return {};
  const half = headDim / 2;
  let divisors = new Float32Array(0);
  for await (const chunk of file.read(ROPE_FACTORS_TENSOR, [half])) divisors = Float32Array.from(chunk);
  const base = Number(file.metadata["llama.rope.freq_base"] ?? 10000);
  // The slowest frequency is divided by the whole factor.
  const llama3 = { ...FAMILY, factor: Number((divisors.at(-1) ?? 1).toPrecision(6)) };
  for (let i = 0; i < half; i++) {
    const expected = llama3Divisor(base ** (-i / half), llama3);
    const found = divisors[i] ?? Number.NaN;
    if (!(Math.abs(found - expected) <= 1e-3 * expected)) {
      throw new CheckpointError(file.path, `'${ROPE_FACTORS_TENSOR}' holds RoPE factors other than llama3 scaling's`);
    }
  }
  return llama3.factor === 1 ? {} : { llama3 };
}

/** By how much llama3 scaling divides a frequency, in radians per position. */
function llama3Divisor(frequency: number, llama3: Llama3): number {
  const { factor, low_freq_factor: low, high_freq_factor: high, original_max_position_embeddings: context } = llama3;
  const wavelength = (2 * Math.PI) / frequency;
  if (wavelength < context / high) return 1;
  if (wavelength > context / low) return factor;
  const smooth = (context / wavelength - low) / (high - low);
  return 1 / ((1 - smooth) / factor + smooth);
}
