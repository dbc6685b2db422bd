import type { Architecture } from "@fathom/shared";

export interface RopeTable {
  /** float32 [positions, headDim / 2]. */
  cos: Float32Array;
  sin: Float32Array;
  /** Values per position: headDim / 2. */
  width: number;
}

/**
 * Inverse frequencies of rotary embedding, float32 as Hugging Face computes them (RoFormer, section 3.4.2), with Llama-3's
 * frequency scaling where the architecture asks for it (transformers `_compute_llama3_parameters`).
 */
export function inverseFrequencies(architecture: Architecture): Float32Array {
  const { head_dim, rope } = architecture;
  const frequencies = new Float32Array(head_dim / 2);
  for (let i = 0; i < frequencies.length; i++) {
    frequencies[i] = 1 / Math.fround(rope.theta ** Math.fround((2 * i) / head_dim));
  }
  const scaling = rope.llama3;
  if (!scaling) return frequencies;
  const longest = scaling.original_max_position_embeddings / scaling.low_freq_factor;
  const shortest = scaling.original_max_position_embeddings / scaling.high_freq_factor;
  return frequencies.map((frequency) => {
    const wavelength = (2 * Math.PI) / frequency;
    if (wavelength < shortest) return frequency;
    if (wavelength > longest) return frequency / scaling.factor;
    const smooth =
      (scaling.original_max_position_embeddings / wavelength - scaling.low_freq_factor) /
      (scaling.high_freq_factor - scaling.low_freq_factor);
    return ((1 - smooth) * frequency) / scaling.factor + smooth * frequency;
  });
}

/** cos and sin of every position below `positions`. */
export function ropeTable(architecture: Architecture, positions: number): RopeTable {
  const frequencies = inverseFrequencies(architecture);
  const width = frequencies.length;
  const cos = new Float32Array(positions * width);
  const sin = new Float32Array(positions * width);
  for (let position = 0; position < positions; position++) {
    for (let i = 0; i < width; i++) {
      const angle = Math.fround(position * (frequencies[i] ?? 0));
      cos[position * width + i] = Math.cos(angle);
      sin[position * width + i] = Math.sin(angle);
    }
  }
  return { cos, sin, width };
}
