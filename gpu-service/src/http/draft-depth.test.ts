import { expect, test } from "vitest";
import { bestDraftDepth } from "./draft-depth.ts";

const EXITS = [6, 12, 18, 24];

function profile(agreement: Record<number, number | undefined>, msPerLayer = 1) {
  const exits = EXITS.map((depth) => {
    const known = agreement[depth];
    return { depth, ms_per_token: depth * msPerLayer, ...(known === undefined ? {} : { agreement: known }) };
  });
  return { version: 1, measured_on: "paper", exits };
}

test("without a profile, or one that knows no agreement, the shallowest exit drafts", () => {
  expect(bestDraftDepth(EXITS, 24, undefined)).toBe(6);
  expect(bestDraftDepth(EXITS, 24, profile({}))).toBe(6);
});

test.each([
  ["a shallow exit that agrees as often is faster", { 6: 0.8, 12: 0.8, 18: 0.8 }, 24, 6],
  ["an exit that never agrees is no use", { 6: 0, 12: 0.9, 18: 0.91 }, 24, 12],
  ["a deep exit must agree much more often", { 6: 0.3, 12: 0.4, 18: 0.99 }, 24, 18],
  ["only exits below the target count", { 6: 0.1, 12: 0.5, 18: 1 }, 18, 12],
  ["exits without an agreement are left out", { 12: 0.5 }, 24, 12],
])("%s", (_, agreement, target, depth) => {
  expect(bestDraftDepth(EXITS, target, profile(agreement))).toBe(depth);
});

test("exits that are not served are left out", () => {
  expect(bestDraftDepth([12, 24], 24, profile({ 6: 0.99, 12: 0.2 }))).toBe(12);
});

test("there is no draft below the shallowest exit", () => {
  expect(bestDraftDepth(EXITS, 6, profile({ 6: 0.9, 12: 0.9 }))).toBeUndefined();
});
