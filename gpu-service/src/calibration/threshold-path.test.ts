import { expect, test } from "vitest";
import { simulateExits, type Thresholds } from "./exit-simulation.ts";
import { DEPTHS, population } from "./testing/population.ts";
import { fittedPath, sharedPath, THRESHOLD_GRID } from "./threshold-path.ts";

const answers = population(120, 30, 5);

function outcome(thresholds: Thresholds): { risk: number; layers: number } {
  const { losses, layers } = simulateExits(answers, DEPTHS, thresholds);
  return { layers, risk: losses.reduce((sum, loss) => sum + loss, 0) / losses.length };
}

test("the grid ascends, within (0, 1), and has six decimals", () => {
  expect(THRESHOLD_GRID.every((level, i) => level > (THRESHOLD_GRID[i - 1] ?? 0) && level < 1)).toBe(true);
  expect(THRESHOLD_GRID.every((level) => Number(level.toFixed(6)) === level)).toBe(true);
});

test("both paths go from conservative to aggressive", () => {
  const shared = sharedPath(DEPTHS).map(outcome);
  for (const [i, { layers }] of shared.entries()) expect(layers).toBeLessThanOrEqual(shared[i - 1]?.layers ?? layers);
  const fitted = fittedPath(answers, DEPTHS).map(outcome);
  expect(fitted.length).toBeGreaterThan(20);
  for (const [i, { layers, risk }] of fitted.entries()) {
    expect(layers).toBeLessThan(fitted[i - 1]?.layers ?? Number.POSITIVE_INFINITY);
    expect(risk).toBeGreaterThanOrEqual(fitted[i - 1]?.risk ?? 0);
  }
});

test("on the answers that it is fitted to, the path never needs more layers than a shared threshold of like risk", () => {
  const path = fittedPath(answers, DEPTHS).map(outcome);
  for (const shared of sharedPath(DEPTHS).map(outcome)) {
    // The path's steps leave small gaps of risk.
    const best = path.filter(({ risk }) => risk <= shared.risk + 0.001).at(-1);
    expect(best?.layers ?? Number.POSITIVE_INFINITY).toBeLessThanOrEqual(shared.layers * 1.02);
  }
});

test("with one early exit every point is the best threshold for its price", () => {
  const single = answers.map(({ tokens, confidence, differs }) => ({
    tokens,
    confidence: confidence.slice(1, 2),
    differs: differs.slice(1, 2),
  }));
  const depths = [4, 8];
  const measure = (thresholds: Thresholds) => {
    const { losses, layers, tokens } = simulateExits(single, depths, thresholds);
    return { share: layers / tokens / 8, risk: losses.reduce((sum, loss) => sum + loss, 0) / losses.length };
  };
  const all = THRESHOLD_GRID.map((level) => measure({ 4: level }));
  const hull = fittedPath(single, depths).map(measure);
  for (const price of [0.5, 2, 5, 20]) {
    const cost = ({ share, risk }: { share: number; risk: number }) => share + price * risk;
    const best = Math.min(1, ...all.map(cost));
    expect(Math.min(1, ...hull.map(cost))).toBeLessThan(best + 1e-3);
  }
});

test("an exit that is always wrong gets no threshold while disagreement is dear", () => {
  const wrong = answers.map(({ differs: [first, ...rest], ...answer }) => ({
    ...answer,
    differs: [first?.map(() => 1) ?? new Uint8Array(), ...rest],
  }));
  const path = fittedPath(wrong, DEPTHS);
  const shallow = path.findIndex((thresholds) => thresholds[2] !== undefined);
  expect(shallow).toBeGreaterThan(30);
  expect(path.slice(shallow).every((thresholds) => thresholds[2] !== undefined)).toBe(true);
});
