import fc from "fast-check";
import { describe, expect, test } from "vitest";
import { randomStream } from "../../random/random-stream.ts";
import { distill } from "./distill.ts";
import { METHOD_NAMES, METHODS } from "./methods.ts";

const exitSet = fc.uniqueArray(fc.integer({ min: 1, max: 80 }), { minLength: 1, maxLength: 10 });
const options = { exitsPerStep: 1, alwaysFull: false };

describe.each(METHOD_NAMES.filter((name) => name !== "ict"))("%s", (method) => {
  test("runs ascending exits of the set, with weights that sum to 1", () => {
    fc.assert(
      fc.property(exitSet, fc.nat(), fc.integer({ min: 1, max: 12 }), fc.boolean(), (set, seed, exitsPerStep, full) => {
        const exits = set.toSorted((x, y) => x - y);
        const terms = METHODS[method](exits, { exitsPerStep, alwaysFull: full }, randomStream(seed));
        const depths = terms.map(({ depth }) => depth);
        expect(depths).toEqual(exits.filter((depth) => depths.includes(depth)));
        expect(terms.reduce((sum, { weight }) => sum + weight, 0)).toBeCloseTo(1, 10);
      }),
    );
  });
});

test("sft runs full depth, soft all exits alike, lite the deeper ones with more weight", () => {
  const exits = [4, 8, 12];
  const run = (method: "sft" | "soft" | "lite", weights?: number[]) =>
    METHODS[method](exits, { ...options, weights }, randomStream(1)).map(({ weight }) => weight);
  expect(run("sft")).toEqual([1]);
  expect(run("soft")).toEqual([1 / 3, 1 / 3, 1 / 3]);
  expect(run("lite")).toEqual([1 / 6, 2 / 6, 3 / 6]);
  expect(run("lite", [1, 1, 2])).toEqual([0.25, 0.25, 0.5]);
});

test("sortednet draws every exit equally often, and full depth always when asked to", () => {
  const exits = [4, 8, 12, 16];
  const counts = new Map(exits.map((depth) => [depth, 0]));
  for (let step = 0; step < 4000; step++) {
    for (const { depth } of METHODS.sortednet(exits, options, randomStream(3, step))) {
      counts.set(depth, (counts.get(depth) ?? 0) + 1);
    }
    const terms = METHODS.sortednet(exits, { exitsPerStep: 3, alwaysFull: true }, randomStream(3, step));
    expect(terms.length).toBe(3);
    expect(terms.at(-1)?.depth).toBe(16);
  }
  for (const count of counts.values()) expect(Math.abs(count - 1000)).toBeLessThan(120);
});

test("sortednet weighs the exits that it draws", () => {
  const terms = METHODS.sortednet([4, 8], { exitsPerStep: 2, alwaysFull: false, weights: [1, 3] }, randomStream(1));
  expect(terms).toEqual([
    { depth: 4, weight: 0.25 },
    { depth: 8, weight: 0.75 },
  ]);
});

test("distillation takes its share of each weight, but not where an exit would teach itself", () => {
  const terms = [
    { depth: 4, weight: 0.5 },
    { depth: 8, weight: 0.5 },
  ];
  expect(distill(terms, 1, undefined)).toEqual(terms.map(({ depth }) => ({ depth, weight: 0, distillWeight: 0.5 })));
  expect(distill(terms, 0.5, 8)).toEqual([
    { depth: 4, weight: 0.25, distillWeight: 0.25 },
    { depth: 8, weight: 0.5 },
  ]);
});

test("ict runs every exit but the last, each for itself", () => {
  const options = { weights: undefined, exitsPerStep: 1, alwaysFull: false };
  expect(METHODS.ict([2, 4, 8], options, () => 0)).toEqual([
    { depth: 2, weight: 1 },
    { depth: 4, weight: 1 },
  ]);
  expect(METHODS.ict([8], options, () => 0)).toEqual([]);
});
