import fc from "fast-check";
import { expect, test } from "vitest";
import { klDivergence, logSumExp } from "./kl.ts";

const logits = fc.array(fc.double({ min: -30, max: 30, noNaN: true }), { minLength: 2, maxLength: 50 });

test("worked example: KL of (½, ½) to (¼, ¾)", () => {
  const expected = 0.5 * Math.log(0.5 / 0.25) + 0.5 * Math.log(0.5 / 0.75);
  expect(klDivergence([0, 0], [Math.log(0.25), Math.log(0.75)])).toBeCloseTo(expected, 12);
});

test("logSumExp neither overflows nor loses small terms", () => {
  expect(logSumExp([1000, 1000])).toBeCloseTo(1000 + Math.log(2), 9);
  expect(logSumExp([-1000, -1000])).toBeCloseTo(-1000 + Math.log(2), 9);
});

test("is zero for equal distributions, never negative, and blind to a shift of the logits", () => {
  fc.assert(
    fc.property(logits, fc.double({ min: -50, max: 50, noNaN: true }), (p, shift) => {
      expect(
        klDivergence(
          p,
          p.map((x) => x + shift),
        ),
      ).toBeCloseTo(0, 8);
      const q = p.toReversed();
      expect(klDivergence(p, q)).toBeGreaterThanOrEqual(0);
    }),
  );
});

test("matches the direct float64 sum", () => {
  fc.assert(
    fc.property(logits, (p) => {
      const q = p.map((x, i) => x * 0.5 + i / p.length);
      const softmax = (x: number[]) => {
        const exp = x.map(Math.exp);
        const sum = exp.reduce((a, b) => a + b, 0);
        return exp.map((e) => e / sum);
      };
      const [P, Q] = [softmax(p), softmax(q)];
      const direct = P.reduce((sum, pi, i) => sum + (pi === 0 ? 0 : pi * Math.log(pi / (Q[i] ?? 1))), 0);
      expect(Math.abs(klDivergence(p, q) - direct)).toBeLessThan(1e-9 * Math.max(1, direct));
    }),
  );
});

test("refuses vectors of different length", () => {
  expect(() => klDivergence([1, 2], [1])).toThrow("2 and 1");
});
