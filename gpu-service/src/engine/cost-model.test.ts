import fc from "fast-check";
import { expect, test } from "vitest";
import { CostModel } from "./cost-model.ts";

const rows = fc.integer({ min: 1, max: 300 });
const ms = fc.double({ min: 0.01, max: 100, noNaN: true });

test("before any reading, more rows cost more, but less than in proportion", () => {
  fc.assert(
    fc.property(rows, rows, (x, y) => {
      const cost = new CostModel();
      for (const estimate of [(n: number) => cost.perLayer(n), (n: number) => cost.head(n)]) {
        if (x < y) {
          expect(estimate(x)).toBeLessThan(estimate(y));
          expect(estimate(y) / estimate(x)).toBeLessThan(y / x);
        }
      }
    }),
  );
});

test("the first reading is believed, per layer, for every number of rows between the same powers of two", () => {
  const cost = new CostModel();
  cost.observeLayers(6, 5, 10);
  cost.observeHead(6, 3);
  for (const n of [5, 6, 7, 8]) expect([cost.perLayer(n), cost.head(n)]).toEqual([2, 3]);
  expect(cost.perLayer(4)).not.toBe(2);
  expect(cost.perLayer(9)).not.toBe(2);
});

test("readings of layers and of heads do not mix", () => {
  const cost = new CostModel();
  const guess = cost.head(4);
  cost.observeLayers(4, 1, 77);
  expect(cost.head(4)).toBe(guess);
});

test("an estimate stays within the readings and comes to a new level within a hundred of them", () => {
  fc.assert(
    fc.property(rows, fc.array(ms, { minLength: 1, maxLength: 20 }), ms, (n, readings, level) => {
      const cost = new CostModel();
      for (const reading of readings) {
        cost.observeHead(n, reading);
        expect(cost.head(n)).toBeGreaterThanOrEqual(Math.min(...readings) * (1 - 1e-9));
        expect(cost.head(n)).toBeLessThanOrEqual(Math.max(...readings) * (1 + 1e-9));
      }
      const before = cost.head(n);
      for (let i = 0; i < 100; i++) cost.observeHead(n, level);
      expect(Math.abs(cost.head(n) - level)).toBeLessThanOrEqual(1e-4 * Math.abs(before - level) + 1e-9);
    }),
  );
});

test("one hiccup moves an estimate by a tenth of what it was off", () => {
  const cost = new CostModel();
  cost.observeHead(1, 1);
  cost.observeHead(1, 101);
  expect(cost.head(1)).toBeCloseTo(11, 9);
});

test("numbers of rows never seen are derived from the nearest that was, in proportion to rows and a fixed share", () => {
  const cost = new CostModel();
  cost.observeLayers(1, 1, 3);
  cost.observeLayers(64, 1, 660);
  expect(cost.perLayer(2)).toBeCloseTo(4, 9);
  expect(cost.perLayer(4)).toBeCloseTo(6, 9);
  expect(cost.perLayer(32)).toBeCloseTo(340, 9);
  expect(cost.perLayer(128)).toBeCloseTo(1300, 9);
});
