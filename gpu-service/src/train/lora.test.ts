import type { Architecture } from "@fathom/shared";
import { afterAll, expect, test } from "vitest";
import { randomParameters } from "./initialise.ts";
import { LoraAdapters } from "./lora.ts";
import { type Parameters, parameter } from "./parameters.ts";
import { randomStream } from "./random.ts";

const a: Architecture = {
  type: "llama",
  hidden_size: 8,
  intermediate_size: 12,
  layers: 2,
  heads: 2,
  kv_heads: 1,
  head_dim: 4,
  vocab_size: 16,
  rms_norm_eps: 1e-5,
  context_length: 8,
  rope: { theta: 100 },
  tied: true,
};
const base = randomParameters(a, 1);
const adapters = new LoraAdapters(a, base, [1], { rank: 3, seed: 5, saved: undefined }, { threads: 1 });
const NAME = "layers.1.mlp.down";

afterAll(() => adapters.close());

async function merged(): Promise<Parameters> {
  const parameters: Parameters = new Map(base);
  await adapters.merge(parameters);
  return parameters;
}

test("fresh adapters change nothing; only the layers asked for are adapted", async () => {
  expect(await merged()).toEqual(base);
  expect(adapters.parameters.size).toBe(2 * 4);
  for (const name of adapters.parameters.keys()) expect(name).toMatch(/^layers\.1\./);
});

test("the merged matrix is W₀ + 2·B·A, and the gradients match finite differences of a linear loss", async () => {
  const random = randomStream(9);
  for (const values of adapters.parameters.values()) for (let i = 0; i < values.length; i++) values[i] = random() - 0.5;
  const A = parameter(adapters.parameters, `${NAME}.lora_a`);
  const B = parameter(adapters.parameters, `${NAME}.lora_b`);
  const W = parameter(await merged(), NAME);
  const base0 = parameter(base, NAME);
  const [n, k] = [8, 12];
  for (let row = 0; row < n; row++) {
    for (let column = 0; column < k; column++) {
      const update = [0, 1, 2].reduce((sum, r) => sum + (B[row * 3 + r] ?? 0) * (A[r * k + column] ?? 0), 0);
      expect(W[row * k + column]).toBeCloseTo((base0[row * k + column] ?? 0) + 2 * update, 5);
    }
  }
  // Loss = Σ C ⊙ W: its gradient with respect to W is C.
  const C = Float32Array.from({ length: n * k }, () => random() - 0.5);
  const loss = async () => parameter(await merged(), NAME).reduce((sum, w, i) => sum + w * (C[i] ?? 0), 0);
  const gradients = await adapters.pullBack(new Map([[NAME, C]]));
  expect([...gradients.keys()]).toEqual([`${NAME}.lora_a`, `${NAME}.lora_b`]);
  for (const [name, gradient] of gradients) {
    const values = parameter(adapters.parameters, name);
    for (const i of [0, 5, values.length - 1]) {
      const kept = values[i] as number;
      values[i] = kept + 0.01;
      const up = await loss();
      values[i] = kept - 0.01;
      const down = await loss();
      values[i] = kept;
      expect((up - down) / 0.02).toBeCloseTo(gradient[i] as number, 3);
    }
  }
});
