import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { selectMatrices } from "../checkpoint/select-matrices.ts";
import { temporaryFolder } from "../checkpoint/testing/temporary-folder.ts";
import { randomStream } from "../random/random-stream.ts";
import { Backprop, type ExitTerm } from "./backprop.ts";
import { parseFrozen } from "./frozen.ts";
import { freshAdapters, mergeAdapters } from "./lora.ts";
import { type Gradients, type Parameters, parameter } from "./parameters.ts";
import { importTiny, type TinyModel } from "./testing/tiny-model.ts";

const root = temporaryFolder();
const RANK = 3;
const PART = "mlp.down,layers:2,layers:4";
const NAME = "layers.1.mlp.down";
const FROZEN = "embeddings,head,norm,layers:0";

let model: TinyModel;
let engine: Backprop;
let terms: ExitTerm[];
beforeAll(async () => {
  model = await importTiny("tied", join(root, "tied"));
  const { architecture, exits } = model;
  engine = new Backprop(architecture, { threads: 1, frozen: parseFrozen(FROZEN, architecture) });
  terms = exits.map((depth, i) => ({ depth, weight: 0.3 / (i + 1), distillWeight: 0.2 }));
});
afterAll(() => engine.close());

/** The model with adapters on every layer but the lowest; `seed` makes them random, without it they are fresh. */
function adapted(seed?: number, matrices = () => `layers:1-${model.architecture.layers - 1}`): Parameters {
  const adapters = freshAdapters(model.architecture, selectMatrices(matrices(), model.architecture), RANK, 5);
  if (seed !== undefined) {
    const random = randomStream(seed);
    for (const values of adapters.values()) for (let i = 0; i < values.length; i++) values[i] = 0.2 * (random() - 0.5);
  }
  return new Map([...model.parameters, ...adapters]);
}

async function run(parameters: Parameters) {
  const gradients: Gradients = new Map();
  const losses = await engine.run(parameters, model.batch, terms, gradients, { teacher: model.parameters });
  const loss = losses.reduce((sum, { loss, kl = 0 }, e) => sum + (terms[e]?.weight ?? 0) * loss + 0.2 * kl, 0);
  return { loss, gradients };
}

test("fresh adapters change nothing, and only the layers asked for have some", async () => {
  const { loss, gradients } = await run(adapted());
  expect(loss).toBeCloseTo((await run(model.parameters)).loss, 6);
  expect(gradients.size).toBe(2 * 4 * (model.architecture.layers - 1));
  for (const name of gradients.keys()) expect(name).toMatch(/^layers\.[1-9]\d*\..*\.lora_[ab]$/);
});

test("matrices without adapters get no gradient and change nothing for those that have some", async () => {
  const ownLayers = (values: Parameters) =>
    new Map([...values].filter(([name]) => !name.startsWith("layers.0.mlp.down.")));
  const some = ownLayers(adapted(9, () => PART));
  const { loss, gradients } = await run(some);
  const zeros = adapted();
  const padded = new Map([...zeros].map(([name, values]) => [name, some.get(name) ?? values]));
  const all = await run(padded);
  expect(loss).toBeCloseTo(all.loss, 5);
  const names = [...gradients.keys()];
  expect(new Set(names.map((name) => name.replace(/\.lora_[ab]$/, "")))).toEqual(
    new Set([...selectMatrices(PART, model.architecture)].filter((name) => !name.startsWith("layers.0."))),
  );
  for (const name of names) {
    const [own, other] = [parameter(gradients, name), parameter(all.gradients, name)];
    expect(own.length).toBe(other.length);
    for (let i = 0; i < own.length; i += 5) expect(own[i], name).toBeCloseTo(other[i] ?? Number.NaN, 4);
  }
});

test("the merged matrix is W₀ + 2·B·A and computes what the adapters compute", async () => {
  const parameters = adapted(9);
  const merged = await mergeAdapters(model.architecture, parameters, { threads: 1 });
  expect([...merged.keys()]).toEqual([...model.parameters.keys()]);
  const { hidden_size: n, intermediate_size: k } = model.architecture;
  const A = parameter(parameters, `${NAME}.lora_a`);
  const B = parameter(parameters, `${NAME}.lora_b`);
  for (let i = 0; i < n * k; i += 7) {
    const [row, column] = [Math.floor(i / k), i % k];
    const product = [0, 1, 2].reduce((sum, r) => sum + (B[row * RANK + r] ?? 0) * (A[r * k + column] ?? 0), 0);
    expect(merged.get(NAME)?.[i]).toBeCloseTo((parameter(parameters, NAME)[i] ?? 0) + 2 * product, 5);
  }
  expect((await run(merged)).loss).toBeCloseTo((await run(parameters)).loss, 4);
});

test("the adapters' gradients are those of the merged matrix, taken back through 2·B·A", async () => {
  const parameters = adapted(9);
  const { gradients } = await run(parameters);
  const whole = (await run(await mergeAdapters(model.architecture, parameters, { threads: 1 }))).gradients;
  const dW = parameter(whole, NAME);
  const { hidden_size: n, intermediate_size: k } = model.architecture;
  const A = parameter(parameters, `${NAME}.lora_a`);
  const B = parameter(parameters, `${NAME}.lora_b`);
  const dA = parameter(gradients, `${NAME}.lora_a`);
  const dB = parameter(gradients, `${NAME}.lora_b`);
  const largest = (values: Float32Array) => values.reduce((x, y) => Math.max(x, Math.abs(y)), 0);
  for (let r = 0; r < RANK; r++) {
    for (let column = 0; column < k; column += 5) {
      let expected = 0;
      for (let row = 0; row < n; row++) expected += 2 * (B[row * RANK + r] ?? 0) * (dW[row * k + column] ?? 0);
      expect(Math.abs((dA[r * k + column] ?? Number.NaN) - expected) / largest(dA)).toBeLessThan(1e-4);
    }
    for (let row = 0; row < n; row += 3) {
      let expected = 0;
      for (let column = 0; column < k; column++) expected += 2 * (A[r * k + column] ?? 0) * (dW[row * k + column] ?? 0);
      expect(Math.abs((dB[row * RANK + r] ?? Number.NaN) - expected) / largest(dB)).toBeLessThan(1e-4);
    }
  }
});
