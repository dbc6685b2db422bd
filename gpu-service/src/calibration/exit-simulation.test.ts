import fc from "fast-check";
import { expect, test } from "vitest";
import { recordAnswer, simulateExits } from "./exit-simulation.ts";
import { DEPTHS, population } from "./testing/population.ts";

const scores = [
  { depth: 2, predicted: Int32Array.of(6, 5, 7, 9), confidence: Float32Array.of(1, 0.5, 0.25, 0.75) },
  { depth: 4, predicted: Int32Array.of(6, 5, 8, 1), confidence: Float32Array.of(1, 0.1, 0.9, 0.5) },
  { depth: 8, predicted: Int32Array.of(5, 5, 8, 9), confidence: Float32Array.of(1, 0.9, 0.9, 0.9) },
];

test("an answer's record says where exits differ from full depth", () => {
  const answer = recordAnswer(scores, [2, 4, 8]);
  expect(answer.tokens).toBe(4);
  expect(answer.differs.map((row) => [...row])).toEqual([
    [1, 0, 1, 0],
    [1, 0, 0, 1],
  ]);
  expect(recordAnswer(scores, [4, 8]).differs).toHaveLength(1);
  expect(() => recordAnswer(scores, [2, 6, 8])).toThrow("no exit at depth 6");
});

test("a token but the first stops at the first exit that reaches its threshold; the threshold itself reaches", () => {
  const answer = recordAnswer(scores, [2, 4, 8]);
  const at = (thresholds: Record<number, number>) => simulateExits([answer], [2, 4, 8], thresholds);
  expect(at({})).toMatchObject({ tokens: 4, differing: 0, layers: 32 });
  expect(at({ 2: 0.5, 4: 0.5 })).toMatchObject({ tokens: 4, differing: 0, layers: 8 + 2 + 4 + 2 });
  expect(at({ 4: 0.5 })).toEqual({
    losses: Float64Array.of(1 / 4),
    tokens: 4,
    differing: 1,
    layers: 8 + 8 + 4 + 4,
    exits: [
      { depth: 2, tokens: 0, differing: 0 },
      { depth: 4, tokens: 2, differing: 1 },
      { depth: 8, tokens: 2, differing: 0 },
    ],
  });
  expect(at({ 2: 0 }).losses).toEqual(Float64Array.of(1 / 4));
});

const answers = population(40, 20, 3);
const level = fc.option(fc.double({ min: 0, max: 1, noNaN: true }), { nil: undefined });
const early = DEPTHS.slice(0, -1);

function thresholdsOf(levels: readonly (number | undefined)[]): Record<number, number> {
  return Object.fromEntries(early.flatMap((depth, i) => (levels[i] === undefined ? [] : [[depth, levels[i]]])));
}

test("raising thresholds never saves layers; every token is decided once", () => {
  fc.assert(
    fc.property(fc.tuple(level, level, level), fc.tuple(level, level, level), (x, y) => {
      const higher = x.map((a, i) => {
        const b = y[i];
        return a === undefined || b === undefined ? undefined : Math.max(a, b);
      });
      const [low, high] = [x, higher].map((levels) => simulateExits(answers, DEPTHS, thresholdsOf(levels)));
      expect(high?.layers).toBeGreaterThanOrEqual(low?.layers ?? 0);
      expect(low?.exits.reduce((sum, { tokens }) => sum + tokens, 0)).toBe(low?.tokens);
      for (const loss of low?.losses ?? []) expect(loss >= 0 && loss <= 1).toBe(true);
    }),
  );
});
