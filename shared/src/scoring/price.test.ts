import fc from "fast-check";
import { expect, test } from "vitest";
import { layerTokens, priceMicroUsd } from "./price.ts";

test("prompt tokens count at the depth that prefilled them", () => {
  expect(layerTokens(41, 24, 612)).toBe(41 * 24 + 612);
  expect(layerTokens(0, 30, 0)).toBe(0);
});

test("prices are whole micro-USD, rounded up, exact beyond 2^53 nano-USD", () => {
  expect(priceMicroUsd(1630, 25)).toBe(41);
  expect(priceMicroUsd(0, 25)).toBe(0);
  expect(priceMicroUsd(1, 1)).toBe(1);
  expect(priceMicroUsd(10_000_000_000, 1_000_001)).toBe(10_000_010_000_000);
});

test("splitting a charge never makes it cheaper, and a larger charge never costs less", () => {
  const tokens = fc.integer({ min: 0, max: 10_000_000 });
  fc.assert(
    fc.property(tokens, tokens, fc.integer({ min: 0, max: 100_000 }), (a, b, price) => {
      const whole = priceMicroUsd(a + b, price);
      expect(priceMicroUsd(a, price) + priceMicroUsd(b, price)).toBeGreaterThanOrEqual(whole);
      expect(whole).toBeGreaterThanOrEqual(priceMicroUsd(a, price));
    }),
  );
});

test("refuses fractions, negatives and unsafe numbers", () => {
  expect(() => priceMicroUsd(1.5, 1)).toThrow(RangeError);
  expect(() => priceMicroUsd(1, -1)).toThrow(RangeError);
  expect(() => priceMicroUsd(2 ** 53, 1)).toThrow(RangeError);
});
