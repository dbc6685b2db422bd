import fc from "fast-check";
import { expect, test } from "vitest";
import { dequantize } from "../checkpoint/dequantize.ts";
import { bytesOf } from "../checkpoint/float16.ts";
import { quantizeInt4 } from "../checkpoint/quantize-int4.ts";
import { quantizeInt4WithOffsets } from "../checkpoint/quantize-int4-offsets.ts";
import { randomStream } from "../random/random-stream.ts";
import { gptq } from "./gptq.ts";
import { inverseFactor } from "./inverse-factor.ts";

const BLOCK = 32;

function normal(random: () => number): number {
  return Math.sqrt(-2 * Math.log(1 - random())) * Math.cos(2 * Math.PI * random());
}

/** Inputs whose features are correlated, as those of a layer are: float64 [rows, k]. */
function inputs(rows: number, k: number, seed: number): Float64Array {
  const random = randomStream(seed);
  const mix = Float64Array.from({ length: k * k }, () => normal(random) / Math.sqrt(k));
  const x = new Float64Array(rows * k);
  for (let r = 0; r < rows; r++) {
    const source = Float64Array.from({ length: k }, (_, i) => normal(random) * (i < k / 4 ? 4 : 0.3));
    for (let i = 0; i < k; i++) {
      let sum = 0;
      for (let j = 0; j < k; j++) sum += (mix[i * k + j] ?? 0) * (source[j] ?? 0);
      x[r * k + i] = sum;
    }
  }
  return x;
}

function gramOf(x: Float64Array, k: number): Float64Array {
  const gram = new Float64Array(k * k);
  for (let r = 0; r < x.length / k; r++) {
    for (let i = 0; i < k; i++) {
      for (let j = 0; j < k; j++) gram[i * k + j] = (gram[i * k + j] ?? 0) + (x[r * k + i] ?? 0) * (x[r * k + j] ?? 0);
    }
  }
  return gram;
}

/** Σ (x·(w − q))² over all rows of x and of the matrices. */
function error(x: Float64Array, w: Float32Array, q: Float32Array, k: number): number {
  let sum = 0;
  for (let r = 0; r < x.length / k; r++) {
    for (let row = 0; row < w.length / k; row++) {
      let difference = 0;
      for (let i = 0; i < k; i++) difference += (x[r * k + i] ?? 0) * ((w[row * k + i] ?? 0) - (q[row * k + i] ?? 0));
      sum += difference ** 2;
    }
  }
  return sum;
}

const [n, k] = [24, 96];
const random = randomStream(7);
const weights = Float32Array.from({ length: n * k }, () => normal(random) * 0.05);

test("U of the inverse factor gives Uᵀ·U = (H + damping)⁻¹", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 24 }), fc.nat(), (size, seed) => {
      const gram = gramOf(inputs(size + 3, size, seed), size);
      const u = inverseFactor(gram, size, 0.01);
      const trace = Array.from({ length: size }, (_, i) => gram[i * size + i] ?? 0).reduce((a, b) => a + b, 0);
      const extra = (0.01 * trace) / size;
      for (let i = 0; i < size; i++) {
        for (let j = 0; j < i; j++) expect(u[i * size + j]).toBe(0);
        for (let j = 0; j < size; j++) {
          // Row i of UᵀU times column j of H + damping is the identity.
          let sum = 0;
          for (let m = 0; m < size; m++) {
            let inverse = 0;
            for (let p = 0; p <= Math.min(i, m); p++) inverse += (u[p * size + i] ?? 0) * (u[p * size + m] ?? 0);
            sum += inverse * ((gram[m * size + j] ?? 0) + (m === j ? extra : 0));
          }
          expect(sum).toBeCloseTo(i === j ? 1 : 0, 2);
        }
      }
    }),
    { numRuns: 40 },
  );
});

test.each([false, true])("products with the inputs change less than by rounding (offsets: %s)", (offsets) => {
  const x = inputs(400, k, 3);
  const { values } = gptq(weights, n, k, inverseFactor(gramOf(x, k), k, 0.01), { block: BLOCK, offsets });
  const rounded = gptq(weights, n, k, inverseFactor(identity(k), k, 0), { block: BLOCK, offsets }).values;
  expect(error(x, weights, values, k)).toBeLessThan(0.6 * error(x, weights, rounded, k));
});

test("inputs that have nothing to do with each other leave plain rounding", () => {
  const { bytes } = gptq(weights, n, k, inverseFactor(identity(k), k, 0), { block: BLOCK, offsets: false });
  const plain = quantizeInt4(weights, n, k, BLOCK);
  expect(bytes.data).toEqual(plain.data);
  expect(bytes.scales).toEqual(bytesOf(plain.scales));
  expect(bytes.zeroPoints).toEqual(plain.zeroPoints);
});

test("with such inputs offsets cost nothing: the scales are those of rounding, the codes at least as good", () => {
  const { bytes, values } = gptq(weights, n, k, inverseFactor(identity(k), k, 0), { block: BLOCK, offsets: true });
  const plain = quantizeInt4WithOffsets(weights, n, k, BLOCK);
  expect(bytes.scales).toEqual(bytesOf(plain.scales));
  expect(bytes.zeroPoints).toEqual(plain.zeroPoints);
  const rounded = dequantize(
    "int4",
    [n, k],
    { ...plain, scales: bytesOf(plain.scales) },
    { block_size: BLOCK, offsets: true },
  );
  expect(squares(weights, values)).toBeLessThanOrEqual(squares(weights, rounded));
});

test("weights on a grid of int4 stay as they are", () => {
  const plain = quantizeInt4(weights, n, k, BLOCK);
  const onGrid = dequantize(
    "int4",
    [n, k],
    { ...plain, scales: bytesOf(plain.scales) },
    { block_size: BLOCK, offsets: false },
  );
  const factor = inverseFactor(gramOf(inputs(200, k, 9), k), k, 0.01);
  expect(gptq(onGrid, n, k, factor, { block: BLOCK, offsets: false }).values).toEqual(onGrid);
});

// 33 blocks have offset columns of more than one block.
test.each([
  [k, false],
  [k, true],
  [33 * BLOCK, true],
])("the bytes stand for the values (%i columns, offsets: %s)", (columns, offsets) => {
  const rows = 3;
  const w = Float32Array.from({ length: rows * columns }, () => normal(random) * 0.05);
  const factor = inverseFactor(gramOf(inputs(20, columns, 5), columns), columns, 0.01);
  const { bytes, values } = gptq(w, rows, columns, factor, { block: BLOCK, offsets });
  const stored = dequantize("int4", [rows, columns], bytes, { block_size: BLOCK, offsets });
  for (const [i, value] of values.entries()) expect(stored[i]).toBeCloseTo(value, 6);
});

test("a Gram matrix that cannot be inverted is refused", () => {
  expect(() => inverseFactor(Float64Array.of(1, 2, 2, 1), 2, 0)).toThrow(/not positive definite/);
});

function squares(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, value, i) => sum + (value - (b[i] ?? 0)) ** 2, 0);
}

function identity(size: number): Float64Array {
  return Float64Array.from({ length: size * size }, (_, i) => (i % (size + 1) === 0 ? 1 : 0));
}
