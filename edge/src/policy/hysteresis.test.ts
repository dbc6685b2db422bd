import fc from "fast-check";
import { expect, test } from "vitest";
import { LOAD_HYSTERESIS, steadyLoad } from "./hysteresis.ts";

const load = fc.double({ min: 0, max: 1, noNaN: true });
const follow = (loads: readonly number[]) => {
  let steady = 0;
  return loads.map((value) => {
    steady = steadyLoad(steady, value);
    return steady;
  });
};

test("a rising load counts at once, a falling one when it has fallen far enough", () => {
  expect(follow([0.2, 0.6, 0.55, 0.6, 0.4, 0.45, 0])).toEqual([0.2, 0.6, 0.6, 0.6, 0.5, 0.5, LOAD_HYSTERESIS]);
});

test("it is never below the load, and never further above than the width", () => {
  fc.assert(
    fc.property(fc.array(load, { minLength: 1 }), (loads) => {
      for (const [i, steady] of follow(loads).entries()) {
        expect(steady).toBeGreaterThanOrEqual(loads[i] ?? 0);
        expect(steady).toBeLessThanOrEqual((loads[i] ?? 0) + LOAD_HYSTERESIS + 1e-12);
      }
    }),
  );
});

test("a load that wavers by less than the width moves it up only", () => {
  fc.assert(
    fc.property(load, fc.array(fc.double({ min: 0, max: LOAD_HYSTERESIS, noNaN: true })), (base, noise) => {
      const steady = follow([base, ...noise.map((extra) => base + extra)]);
      for (let i = 1; i < steady.length; i++) expect(steady[i]).toBeGreaterThanOrEqual((steady[i - 1] ?? 0) - 1e-12);
    }),
  );
});

test("more load all along never gives less", () => {
  fc.assert(
    fc.property(fc.array(fc.tuple(load, load)), (pairs) => {
      const [low, high] = [
        follow(pairs.map(([x, y]) => Math.min(x, y))),
        follow(pairs.map(([x, y]) => Math.max(x, y))),
      ];
      for (const [i, value] of low.entries()) expect(high[i]).toBeGreaterThanOrEqual(value);
    }),
  );
});
