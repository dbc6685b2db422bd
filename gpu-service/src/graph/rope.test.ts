import type { Architecture } from "@fathom/shared";
import { expect, test } from "vitest";
import { inverseFrequencies, ropeTable } from "./rope.ts";

function architecture(headDim: number, rope: Architecture["rope"]): Architecture {
  return {
    type: "llama",
    hidden_size: headDim,
    intermediate_size: headDim,
    layers: 1,
    heads: 1,
    kv_heads: 1,
    head_dim: headDim,
    vocab_size: 2,
    rms_norm_eps: 1e-5,
    context_length: 16,
    rope,
    tied: true,
  };
}

test("plain RoPE: θ^(-2i/d) and its cosines and sines", () => {
  const a = architecture(8, { theta: 10_000 });
  expect([...inverseFrequencies(a)]).toEqual([1, 0.1, 0.01, 0.001].map((x) => expect.closeTo(x, 7)));
  const { cos, sin, width } = ropeTable(a, 3);
  expect(width).toBe(4);
  expect([...cos.subarray(8, 12)]).toEqual([2, 0.2, 0.02, 0.002].map((x) => expect.closeTo(Math.cos(x), 6)));
  expect([...sin.subarray(8, 12)]).toEqual([2, 0.2, 0.02, 0.002].map((x) => expect.closeTo(Math.sin(x), 6)));
  expect([...cos.subarray(0, 4)]).toEqual([1, 1, 1, 1]);
});

test("Llama-3.1's scaling keeps the short waves, divides the long ones and blends between", () => {
  const a = architecture(128, {
    theta: 500_000,
    llama3: { factor: 8, low_freq_factor: 1, high_freq_factor: 4, original_max_position_embeddings: 8192 },
  });
  const frequencies = inverseFrequencies(a);
  // Worked out in float64 from the model's published configuration.
  const expected: Record<number, number> = {
    0: 1,
    20: 0.016560440080994446,
    28: 0.0032114459947525913,
    30: 0.0013718935677611381,
    32: 0.0005248461609929547,
    34: 0.00017850781276799638,
    36: 7.78465527393245e-5,
    63: 3.068925988914511e-7,
  };
  for (const [i, value] of Object.entries(expected)) {
    expect(Math.abs((frequencies[Number(i)] ?? 0) / value - 1)).toBeLessThan(1e-5);
  }
});
