import fc from "fast-check";
import { expect, test } from "vitest";
import { randomStream } from "../random/random-stream.ts";
import { bettingPValue, fewestPrompts, hoeffdingBentkusPValue, logBinomialTail, RISK_TESTS } from "./risk-bounds.ts";

const tests = Object.entries(RISK_TESTS);

/** `n` losses with the given mean. */
const withMean = (n: number, mean: number) => new Float64Array(n).fill(mean);

/** scipy 1.17.1: binom.logcdf(k, n, p). */
test.each([
  [0, 10, 0.5, -6.931471805599453],
  [3, 20, 0.1, -0.1426624667814684],
  [40, 2000, 0.03, -5.636662295574497],
  [999, 1000, 0.999, -0.4583840780920381],
  [5, 100_000, 0.0002, -9.541258051270072],
  [10, 3000, 0.05, -118.31484926112567],
])("ln P(Bin(n, p) ≤ k) for k = %d, n = %d, p = %d", (k, n, p, expected) => {
  expect(Math.abs(logBinomialTail(k, n, p) / expected - 1)).toBeLessThan(1e-9);
});

test("the binomial tail at its ends", () => {
  expect(logBinomialTail(-1, 10, 0.3)).toBe(Number.NEGATIVE_INFINITY);
  expect(logBinomialTail(10, 10, 0.3)).toBe(0);
});

/** Python, scipy 1.17.1: min(1, exp(-n·h1(min(r, a), a)), e·binom.cdf(ceil(n·r), n, a)). */
test.each([
  [100, 0, 0.02, 0.13261955589475288],
  [149, 0, 0.02, 0.04928165433008944],
  [500, 0.01, 0.02, 0.1772098677078076],
  [1000, 0.012, 0.02, 0.10222047276531365],
  [60, 0.1, 0.1, 1],
  [300, 0.05, 0.2, 2.0721227880123074e-13],
  [5000, 0.0175, 0.02, 0.32996293149759165],
])("Hoeffding-Bentkus of %d losses with mean %d against %d", (n, mean, risk, expected) => {
  // Whole losses, so that n times the mean is the exact count.
  const losses = new Float64Array(n).fill(1, 0, Math.round(n * mean));
  expect(Math.abs(hoeffdingBentkusPValue(losses, risk) / expected - 1)).toBeLessThan(1e-9);
});

/** An independent implementation in numpy: two-pass moments, the first guess as ten losses of mean a/2 and variance a². */
test.each<[string, number[], number, number]>([
  ["none", Array.from({ length: 165 }, () => 0), 0.02, 0.049632160076280615],
  ["small and varied", Array.from({ length: 400 }, (_, i) => ((i * 37) % 101) / 2500), 0.05, 1.3674432236676001e-5],
  ["whole", Array.from({ length: 600 }, (_, i) => (i % 40 === 7 ? 1 : 0)), 0.05, 0.7232753627810775],
  ["uneven", Array.from({ length: 200 }, (_, i) => ((i * i) % 17) / 100), 0.1, 0.024755026618099415],
  ["bad ones first", Array.from({ length: 305 }, (_, i) => (i < 5 ? 1 : 0)), 0.05, 0.005243322217173657],
])("betting on losses: %s", (_, losses, risk, expected) => {
  expect(Math.abs(bettingPValue(losses, risk) / expected - 1)).toBeLessThan(1e-9);
});

test("no losses say nothing", () => {
  for (const [, pValue] of tests) expect(pValue([], 0.1)).toBe(1);
});

test("the fewest prompts that can certify", () => {
  // ln δ / ln(1 − risk) = 148.3: no test can do with fewer.
  expect(fewestPrompts(hoeffdingBentkusPValue, 0.02, 0.05)).toBe(149);
  expect(fewestPrompts(bettingPValue, 0.02, 0.05)).toBe(165);
  expect(fewestPrompts(bettingPValue, 0.05, 0.05)).toBe(65);
  expect(fewestPrompts(hoeffdingBentkusPValue, 0.9, 0.5)).toBe(1);
});

test("small losses that vary little are certified with far fewer prompts by betting", () => {
  const losses = Float64Array.from({ length: 400 }, (_, i) => 0.02 * ((i * 7919) % 11) * 0.1);
  expect(bettingPValue(losses, 0.02)).toBeLessThan(0.05);
  expect(hoeffdingBentkusPValue(losses, 0.02)).toBeGreaterThan(0.2);
});

const unit = fc.double({ min: 0, max: 1, noNaN: true });
const risk = fc.double({ min: 0.001, max: 0.999, noNaN: true });

test.each(tests)("%s: a p-value is in (0, 1] or vanishes", (_, pValue) => {
  fc.assert(
    fc.property(fc.array(unit, { maxLength: 200 }), risk, (losses, level) => {
      const p = pValue(losses, level);
      expect(p).toBeGreaterThanOrEqual(0);
      expect(p).toBeLessThanOrEqual(1);
    }),
  );
});

test("Hoeffding-Bentkus: more loss never makes the evidence stronger, a higher risk never weaker", () => {
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 500 }), unit, unit, risk, risk, (n, x, y, a, b) => {
      const [low, high] = [Math.min(x, y), Math.max(x, y)];
      const [near, far] = [Math.min(a, b), Math.max(a, b)];
      const slack = 1e-12;
      expect(hoeffdingBentkusPValue(withMean(n, low), a)).toBeLessThanOrEqual(
        hoeffdingBentkusPValue(withMean(n, high), a) + slack,
      );
      expect(hoeffdingBentkusPValue(withMean(n, x), far)).toBeLessThanOrEqual(
        hoeffdingBentkusPValue(withMean(n, x), near) + slack,
      );
    }),
  );
});

test.each(tests)("%s: at the boundary P(p ≤ δ) ≤ δ", (_, pValue) => {
  const trials = 3000;
  const [level, n, delta] = [0.05, 200, 0.1];
  const laws: [string, (u: number) => number][] = [
    ["whole losses", (u) => (u < level ? 1 : 0)],
    ["quarters", (u) => (u < 4 * level ? 0.25 : 0)],
    ["uniform", (u) => 2 * level * u],
    ["rare, on top of a constant", (u) => 0.04 + (u < 0.0125 ? 0.8 : 0)],
  ];
  for (const [name, loss] of laws) {
    const random = randomStream(11);
    let rejected = 0;
    for (let i = 0; i < trials; i++) {
      if (
        pValue(
          Float64Array.from({ length: n }, () => loss(random())),
          level,
        ) <= delta
      )
        rejected++;
    }
    const slack = 3 * Math.sqrt((delta * (1 - delta)) / trials);
    expect(rejected / trials, name).toBeLessThanOrEqual(delta + slack);
  }
});
