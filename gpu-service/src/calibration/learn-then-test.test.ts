import { expect, test } from "vitest";
import { randomStream } from "../random/random-stream.ts";
import { simulateExits } from "./exit-simulation.ts";
import { type Guarantee, learnThenTest, planPrompts } from "./learn-then-test.ts";
import { DEPTHS, draw, population } from "./testing/population.ts";
import { sharedPath } from "./threshold-path.ts";

const people = population(4000, 16, 1);

/** Exact for draws with replacement. */
function trueRisk(thresholds: Record<number, number>): number {
  const { losses } = simulateExits(people, DEPTHS, thresholds);
  return losses.reduce((sum, loss) => sum + loss, 0) / losses.length;
}

interface Trials {
  violated: number;
  certified: number;
  layers: number;
}

function calibrations(trials: number, prompts: number, guarantee: Guarantee, family: string): Trials {
  const random = randomStream(21, prompts);
  const result: Trials = { violated: 0, certified: 0, layers: 0 };
  for (let i = 0; i < trials; i++) {
    const { plan, thresholds, certified, measured } = learnThenTest(draw(people, prompts, random), DEPTHS, guarantee);
    expect(plan.family).toBe(family);
    if (certified) result.certified++;
    if (trueRisk(thresholds) > 1 - guarantee.agreement) result.violated++;
    result.layers += measured.layers / measured.tokens / trials;
  }
  return result;
}

test.each([
  ["betting", "fitted", 240, 0.94],
  ["hoeffding-bentkus", "fitted", 240, 0.9],
  ["betting", "shared", 60, 0.94],
] as const)(
  "%s, %s: of many calibrations at most δ break their guarantee",
  (name, family, prompts, agreement) => {
    const delta = 0.2;
    const trials = 200;
    const { violated, certified, layers } = calibrations(
      trials,
      prompts,
      { agreement, confidence: 1 - delta, test: name },
      family,
    );
    expect(violated / trials).toBeLessThanOrEqual(delta + 3 * Math.sqrt((delta * (1 - delta)) / trials));
    // It must not hold by never leaving early.
    expect(certified).toBeGreaterThan(0.5 * trials);
    expect(layers).toBeLessThan(7.5);
  },
  240_000,
);

test("choosing by the empirical agreement alone would break it far more often: the population is no easy one", () => {
  const random = randomStream(22);
  const trials = 100;
  let violated = 0;
  for (let i = 0; i < trials; i++) {
    const answers = draw(people, 160, random);
    const good = sharedPath(DEPTHS).filter((thresholds) => {
      const { losses } = simulateExits(answers, DEPTHS, thresholds);
      return losses.reduce((sum, loss) => sum + loss, 0) / losses.length <= 0.06;
    });
    if (trueRisk(good.at(-1) ?? {}) > 0.06) violated++;
  }
  expect(violated).toBeGreaterThan(0.35 * trials);
});

const usual: Guarantee = { agreement: 0.98, confidence: 0.95, test: "betting" };

test("prompts are split by their number alone", () => {
  expect(planPrompts(900, usual)).toEqual({ family: "fitted", fit: 300, certify: 600 });
  expect(planPrompts(371, usual)).toEqual({ family: "fitted", fit: 123, certify: 248 });
  expect(planPrompts(370, usual).family).toBe("shared");
  expect(planPrompts(200, usual)).toEqual({ family: "shared", fit: 0, certify: 200 });
  expect(() => planPrompts(164, usual)).toThrow(
    "164 prompts cannot certify an agreement of 0.98 with confidence 0.95: that takes at least 165, and 371 for",
  );
  expect(planPrompts(149, { ...usual, test: "hoeffding-bentkus" }).family).toBe("shared");
});

/** Exits that all are wrong for one token in ten, whatever their confidence says. */
function careless(prompts: number, share: number) {
  const random = randomStream(4);
  return Array.from({ length: prompts }, () => {
    const tokens = 30;
    const confidence = DEPTHS.slice(1).map(() => new Float32Array(tokens).fill(1));
    return { tokens, confidence, differs: confidence.map((row) => Uint8Array.from(row, () => +(random() < share))) };
  });
}

test("what cannot be certified is not: no thresholds, and a number of prompts where more would help", () => {
  const hopeless = learnThenTest(careless(200, 0.1), DEPTHS, usual);
  expect(hopeless).toMatchObject({ certified: false, thresholds: {}, passed: 0 });
  expect(hopeless.promptsNeeded).toBeUndefined();
  expect(hopeless.measured).toMatchObject({ differing: 0, layers: 8 * 30 * 200 });

  const close = learnThenTest(careless(200, 0.015), DEPTHS, usual);
  expect(close.certified).toBe(false);
  expect(close.promptsNeeded).toBeGreaterThan(200);
  const enough = learnThenTest(careless(3 * (close.promptsNeeded ?? 0), 0.015), DEPTHS, usual);
  expect(enough.certified).toBe(true);
});

test("a higher agreement or confidence never saves layers", () => {
  const answers = draw(people, 600, randomStream(8));
  const layers = (guarantee: Partial<Guarantee>) =>
    learnThenTest(answers, DEPTHS, { ...usual, ...guarantee }).measured.layers;
  const agreements = [0.97, 0.95, 0.9, 0.8].map((agreement) => layers({ agreement }));
  expect(agreements).toEqual(agreements.toSorted((x, y) => y - x));
  const confidences = [0.99, 0.95, 0.8].map((confidence) => layers({ agreement: 0.94, confidence }));
  expect(confidences).toEqual(confidences.toSorted((x, y) => y - x));
});
