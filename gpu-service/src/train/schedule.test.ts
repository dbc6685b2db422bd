import { expect, test } from "vitest";
import { learningRate } from "./schedule.ts";

test("the rate rises linearly and falls along half a cosine to zero", () => {
  const schedule = { kind: "cosine", warmup: 3, steps: 13 } as const;
  const rates = Array.from({ length: 14 }, (_, step) => learningRate(1, step, schedule));
  expect(rates.slice(0, 4)).toEqual([0.25, 0.5, 0.75, 1]);
  expect(rates[8]).toBeCloseTo(0.5, 12);
  expect(rates[13]).toBeCloseTo(0, 12);
  expect(rates.slice(3)).toEqual(rates.slice(3).toSorted((x, y) => y - x));
});

test("a constant rate stays, and no schedule goes below zero past its end", () => {
  expect(learningRate(2, 500, { kind: "constant", warmup: 0, steps: 10 })).toBe(2);
  expect(learningRate(2, 500, { kind: "cosine", warmup: 0, steps: 10 })).toBeCloseTo(0, 12);
});
