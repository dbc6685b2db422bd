import fc from "fast-check";
import { expect, test } from "vitest";
import { percentile, summarise } from "./distribution.ts";

test("percentiles interpolate between neighbours, as NumPy's do", () => {
  // numpy.percentile([10, 20, 30, 40, 50], [50, 90, 99]) is 30, 46, 49.6.
  const values = [10, 20, 30, 40, 50];
  expect(percentile(values, 50)).toBe(30);
  expect(percentile(values, 90)).toBeCloseTo(46, 12);
  expect(percentile(values, 99)).toBeCloseTo(49.6, 12);
  expect(percentile([1, 2], 50)).toBe(1.5);
  expect(percentile([7], 99)).toBe(7);
});

test("a sample is summed up whatever its order", () => {
  expect(summarise([40, 10, 30, 20, 100])).toEqual({
    count: 5,
    mean: 40,
    min: 10,
    p50: 30,
    p90: expect.closeTo(76, 12),
    p99: expect.closeTo(97.6, 12),
    max: 100,
  });
  expect(summarise([])).toBeNull();
});

test("percentiles rise, stay within the sample and move with it", () => {
  const sample = fc.array(fc.integer({ min: -1e6, max: 1e6 }), { minLength: 1 });
  fc.assert(
    fc.property(sample, fc.integer({ min: -1e6, max: 1e6 }), (values, shift) => {
      const of = summarise(values);
      const moved = summarise(values.map((value) => value + shift));
      if (!of || !moved) throw new Error("a sample has a summary");
      const ladder = [of.min, of.p50, of.p90, of.p99, of.max];
      expect(ladder).toEqual(ladder.toSorted((x, y) => x - y));
      expect([of.min, of.max]).toEqual([Math.min(...values), Math.max(...values)]);
      for (const key of ["mean", "p50", "p90", "p99"] as const) expect(moved[key]).toBeCloseTo(of[key] + shift, 6);
    }),
  );
});
