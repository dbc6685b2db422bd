import fc from "fast-check";
import { expect, test } from "vitest";
import { quantizeInt4 } from "./quantize-int4.ts";
import { quantizeInt8 } from "./quantize-int8.ts";
import { gaussian, randomNumbers } from "./testing/random.ts";

const BLOCK = 32;
/** What rounding a scale to float16 loses, relative. */
const HALF_EPSILON = 2 ** -11;

/** int4 codes, scales and zero points back to values; written from the format's description alone. */
function decodeInt4(q: ReturnType<typeof quantizeInt4>, n: number, k: number): number[] {
  const blocks = Math.ceil(k / BLOCK);
  return Array.from({ length: n * k }, (_, i) => {
    const row = Math.floor(i / k);
    const block = Math.floor((i % k) / BLOCK);
    const at = (row * blocks + block) * BLOCK + ((i % k) % BLOCK);
    const code = ((q.data[at >> 1] ?? 0) >> (at % 2 === 0 ? 0 : 4)) & 15;
    const packed = q.zeroPoints[row * Math.ceil(blocks / 2) + (block >> 1)] ?? 0;
    const zeroPoint = block % 2 === 0 ? packed & 15 : packed >> 4;
    return (code - zeroPoint) * (q.scales[row * blocks + block] ?? 0);
  });
}

function squaredError(a: ArrayLike<number>, b: ArrayLike<number>): number {
  let sum = 0;
  for (let i = 0; i < a.length; i++) sum += ((a[i] ?? 0) - (b[i] ?? 0)) ** 2;
  return sum;
}

/** The finest step at which an integer zero point leaves no value of the range unreachable. */
function stepWithoutClipping(values: readonly number[]): number {
  const low = Math.max(0, -Math.min(...values));
  const high = Math.max(0, ...values);
  let finest = Number.POSITIVE_INFINITY;
  for (let zeroPoint = 0; zeroPoint <= 15; zeroPoint++) {
    if ((zeroPoint === 0 && low > 0) || (zeroPoint === 15 && high > 0)) continue;
    finest = Math.min(finest, Math.max(zeroPoint && low / zeroPoint, zeroPoint < 15 ? high / (15 - zeroPoint) : 0));
  }
  return finest;
}

const weight = fc.float({ min: -8, max: 8, noNaN: true });
const blockOfWeights = fc
  .array(weight, { minLength: 1, maxLength: BLOCK })
  // Below, scales are float16 subnormals and lose more than the tests allow for.
  .filter((values) => values.some((value) => Math.abs(value) > 0.05));

test("int4: a block's error is at most half a step per value, clipping or not", () => {
  fc.assert(
    fc.property(blockOfWeights, (values) => {
      const decoded = decodeInt4(quantizeInt4(Float32Array.from(values), 1, values.length), 1, values.length);
      const perValue = stepWithoutClipping(values) * (0.5 + 15 * HALF_EPSILON);
      expect(squaredError(values, decoded)).toBeLessThanOrEqual(values.length * perValue ** 2);
    }),
    { numRuns: 500 },
  );
});

test("int4: values on a grid that the format can hold come back exactly", () => {
  const codes = fc.array(fc.integer({ min: 0, max: 15 }), { minLength: BLOCK - 2, maxLength: BLOCK - 2 });
  fc.assert(
    fc.property(codes, fc.integer({ min: 1, max: 14 }), fc.integer({ min: 1, max: 2047 }), (some, zeroPoint, scale) => {
      const step = scale / 4096;
      const values = [0, ...some, 15].map((code) => (code - zeroPoint) * step);
      expect(decodeInt4(quantizeInt4(Float32Array.from(values), 1, BLOCK), 1, BLOCK)).toEqual(values.map((v) => v + 0));
    }),
  );
});

/** The smallest squared error of any zero point and scale, by trying them. */
function exhaustive(values: readonly number[]): number {
  const range = Math.max(0, ...values) - Math.min(0, ...values);
  const scale = new Float16Array(1);
  let best = Number.POSITIVE_INFINITY;
  for (let zeroPoint = 0; zeroPoint <= 15; zeroPoint++) {
    for (let share = 0.5; share < 1.5; share += 0.005) {
      scale[0] = (range / 15) * share;
      const s = scale[0] ?? 0;
      let error = 0;
      for (const value of values) {
        const code = Math.min(15, Math.max(0, Math.round(value / s) + zeroPoint));
        error += (value - (code - zeroPoint) * s) ** 2;
      }
      best = Math.min(best, error);
    }
  }
  return best;
}

test.each([
  ["normally distributed values", false],
  ["values on the 16-level grid of GGUF's Q4_1", true],
])("int4: %s lose what they must, and no more", (_, grid) => {
  const values = gaussian(60 * BLOCK, 5, 0.05);
  if (grid) {
    for (let start = 0; start < values.length; start += BLOCK) {
      const block = values.subarray(start, start + BLOCK);
      const low = Math.min(...block);
      const step = (Math.max(...block) - low) / 15;
      for (let i = 0; i < BLOCK; i++) block[i] = low + step * Math.round(((block[i] ?? 0) - low) / step);
    }
  }
  let best = 0;
  for (let start = 0; start < values.length; start += BLOCK)
    best += exhaustive([...values.subarray(start, start + BLOCK)]);
  const found = squaredError(values, decodeInt4(quantizeInt4(values, 60, BLOCK), 60, BLOCK));
  expect(found).toBeLessThan(best * 1.01);
});

test("int8: every value is within half a step", () => {
  fc.assert(
    fc.property(blockOfWeights, (values) => {
      const { data, scales } = quantizeInt8(Float32Array.from(values), 1, values.length);
      const largest = Math.max(...values.map(Math.abs));
      const step = scales[0] ?? 0;
      expect(Math.abs(step - largest / 127)).toBeLessThanOrEqual((largest / 127) * HALF_EPSILON);
      for (const [i, value] of values.entries()) {
        const error = Math.abs(value - ((data[i] ?? 0) - 128) * step);
        expect(error).toBeLessThanOrEqual((largest / 127) * (0.5 + 128 * HALF_EPSILON));
      }
    }),
  );
});

test("blocks follow the row, with its own padding, scales and zero points", () => {
  const [n, k] = [3, 80];
  const random = randomNumbers(3);
  const values = Float32Array.from({ length: n * k }, () => random() - 0.5);
  const whole = quantizeInt4(values, n, k);
  expect([whole.data.length, whole.scales.length, whole.zeroPoints.length]).toEqual([3 * 3 * 16, 9, 3 * 2]);
  for (let row = 0; row < n; row++) {
    const alone = quantizeInt4(values.subarray(row * k, (row + 1) * k), 1, k);
    expect(whole.data.subarray(row * 48, (row + 1) * 48)).toEqual(alone.data);
    expect(whole.scales.subarray(row * 3, (row + 1) * 3)).toEqual(alone.scales);
    expect(whole.zeroPoints.subarray(row * 2, (row + 1) * 2)).toEqual(alone.zeroPoints);
  }
});

test("zeros and values too small for a scale become exact zeros", () => {
  for (const value of [0, 1e-12, -1e-12]) {
    const values = new Float32Array(BLOCK).fill(value);
    expect(decodeInt4(quantizeInt4(values, 1, BLOCK), 1, BLOCK).every((v) => v === 0)).toBe(true);
    const { data, scales } = quantizeInt8(values, 1, BLOCK);
    expect(data.every((code) => (code - 128) * (scales[0] ?? 1) === 0)).toBe(true);
  }
});

test("a block of one sign uses a zero point at the end of the range", () => {
  const values = Float32Array.from({ length: BLOCK }, (_, i) => 1 + i / 31);
  const positive = quantizeInt4(values, 1, BLOCK);
  const negative = quantizeInt4(
    values.map((v) => -v),
    1,
    BLOCK,
  );
  expect((positive.zeroPoints[0] ?? 0) & 15).toBe(0);
  expect((negative.zeroPoints[0] ?? 0) & 15).toBe(15);
});
