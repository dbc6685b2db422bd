import fc from "fast-check";
import { expect, test } from "vitest";
import { argmax, distribution, drawFrom, nucleus, sampleToken, softmax, uniform } from "./sampler.ts";

const logits = Float32Array.of(1, 3, 2, -1, 3);

test("temperature 0 takes the largest logit, the first of a tie", () => {
  expect(argmax(logits)).toBe(1);
  expect(sampleToken(logits, { temperature: 0, topP: 1, seed: 7 }, 0)).toBe(1);
});

test("the same seed and position draw the same token, other seeds draw others", () => {
  const flat = new Float32Array(1000);
  const draw = (seed: number, index: number) => sampleToken(flat, { temperature: 1, topP: 1, seed }, index);
  expect(draw(42, 3)).toBe(draw(42, 3));
  expect(new Set(Array.from({ length: 50 }, (_, seed) => draw(seed, 0))).size).toBeGreaterThan(40);
  expect(new Set(Array.from({ length: 50 }, (_, index) => draw(42, index))).size).toBeGreaterThan(40);
});

test("draws follow the softmax (chi-square, 9 degrees of freedom, p = 0.0001)", () => {
  const values = Float32Array.from({ length: 10 }, (_, i) => i / 3);
  const expected = softmax(values, 0.7);
  const counts = new Float64Array(10);
  const draws = 20_000;
  for (let i = 0; i < draws; i++) {
    const token = sampleToken(values, { temperature: 0.7, topP: 1, seed: 123_456_789_012 }, i);
    counts[token] = (counts[token] ?? 0) + 1;
  }
  const chiSquare = counts.reduce(
    (sum, n, i) => sum + (n - draws * (expected[i] ?? 0)) ** 2 / (draws * (expected[i] ?? 1)),
    0,
  );
  expect(chiSquare).toBeLessThan(33.7);
});

test("the nucleus is the smallest prefix of the ranked tokens that reaches top_p", () => {
  fc.assert(
    fc.property(
      fc.array(fc.float({ min: -8, max: 8, noNaN: true }), { minLength: 1, maxLength: 60 }),
      fc.double({ min: 0.01, max: 0.99, noNaN: true }),
      (values, topP) => {
        const probabilities = softmax(Float32Array.from(values), 1);
        const ranked = [...probabilities.keys()].sort(
          (x, y) => (probabilities[y] ?? 0) - (probabilities[x] ?? 0) || x - y,
        );
        let mass = 0;
        const expected: number[] = [];
        for (const token of ranked) {
          if (mass >= topP) break;
          expected.push(token);
          mass += probabilities[token] ?? 0;
        }
        expect(nucleus(probabilities, topP)).toEqual(expected);
      },
    ),
  );
});

test("the distribution is the softmax within the nucleus and nothing outside it, and sums to 1", () => {
  fc.assert(
    fc.property(
      fc.array(fc.float({ min: -8, max: 8, noNaN: true }), { minLength: 1, maxLength: 40 }),
      fc.double({ min: 0.2, max: 3, noNaN: true }),
      fc.oneof(fc.constant(1), fc.double({ min: 0.01, max: 0.99, noNaN: true })),
      (values, temperature, topP) => {
        const own = Float32Array.from(values);
        const whole = softmax(own, temperature);
        const kept = new Set(topP < 1 ? nucleus(whole, topP) : whole.keys());
        const mass = [...kept].reduce((sum, token) => sum + (whole[token] ?? 0), 0);
        const got = distribution(own, { temperature, topP, seed: 0 });
        expect(got.length).toBe(values.length);
        expect(got.reduce((x, y) => x + y, 0)).toBeCloseTo(1, 9);
        for (const [token, p] of got.entries()) {
          expect(p).toBeCloseTo(kept.has(token) ? (whole[token] ?? 0) / mass : 0, 9);
        }
      },
    ),
  );
});

test("a point draws the token within whose share of the cumulated probabilities it lies", () => {
  const weights = fc.array(fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 8 })), { minLength: 1, maxLength: 12 });
  fc.assert(
    fc.property(
      weights.filter((all) => all.some((weight) => weight > 0)),
      fc.nat(),
      (all, pick) => {
        const total = all.reduce((x, y) => x + y, 0);
        // In the middle of a unit of weight, where rounding cannot decide.
        const unit = pick % total;
        let end = 0;
        const expected = all.findIndex((weight) => {
          end += weight;
          return unit < end;
        });
        const probabilities = Float64Array.from(all, (weight) => weight / total);
        expect(drawFrom(probabilities, (unit + 0.5) / total)).toBe(expected);
      },
    ),
  );
});

test("no point draws a token of probability 0, though the probabilities sum to a little less than 1", () => {
  const probabilities = Float64Array.of(0, 0.1, 0, 0.2, 0.7 - 1e-9, 0);
  expect(drawFrom(probabilities, 0)).toBe(1);
  expect(drawFrom(probabilities, 1 - 2 ** -53)).toBe(4);
});

test("uniform numbers stay in [0, 1) and have the mean and variance of a uniform", () => {
  const draws = Array.from({ length: 20_000 }, (_, i) => uniform(2 ** 40 + 17, i));
  const mean = draws.reduce((x, y) => x + y, 0) / draws.length;
  const variance = draws.reduce((x, y) => x + (y - mean) ** 2, 0) / draws.length;
  expect(Math.min(...draws)).toBeGreaterThanOrEqual(0);
  expect(Math.max(...draws)).toBeLessThan(1);
  expect(mean).toBeCloseTo(0.5, 1);
  expect(variance).toBeCloseTo(1 / 12, 2);
});
