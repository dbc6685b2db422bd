import type { FathomRequest } from "@fathom/shared";
import fc from "fast-check";
import { expect, test } from "vitest";
import { chooseDepth } from "./choose-depth.ts";
import { choosePolicy } from "./choose-policy.ts";

const EXITS = [12, 18, 24, 30];
const CALIBRATED = { thresholds: { 12: 0.95, 18: 0.9, 24: 0.8 } };

test.each<[string, FathomRequest | undefined]>([
  ["nothing asked for", undefined],
  ["a depth", { depth: 24 }],
  ["fixed", { exit: "fixed", min_depth: 12 }],
])("%s: every token at the target", (_, wish) => {
  expect(choosePolicy(EXITS, wish, 24, CALIBRATED)).toEqual({ policy: { type: "fixed" } });
});

test.each<[string, FathomRequest, number, number, Record<number, number>]>([
  ["one threshold holds at every exit below the target", { threshold: 0.7 }, 30, 12, { 12: 0.7, 18: 0.7, 24: 0.7 }],
  ["a threshold of zero is one", { threshold: 0 }, 18, 12, { 12: 0 }],
  ["min_depth is the floor, exit or not", { threshold: 0.7, min_depth: 13 }, 24, 18, { 18: 0.7 }],
  ["the checkpoint's own, by default", {}, 24, 12, { 12: 0.95, 18: 0.9 }],
  ["the checkpoint's own, when asked for", { threshold: "calibrated", min_depth: 18 }, 30, 18, { 18: 0.9, 24: 0.8 }],
])("confidence: %s", (_, wish, target, minDepth, thresholds) => {
  const chosen = choosePolicy(EXITS, { exit: "confidence", ...wish }, target, CALIBRATED);
  expect(chosen).toEqual({ minDepth, policy: { type: "confidence", thresholds } });
});

test("exits that calibration gave no threshold are passed", () => {
  const wish = { exit: "confidence" as const };
  expect(choosePolicy(EXITS, wish, 30, { thresholds: { 24: 0.8 } })).toEqual({
    minDepth: 12,
    policy: { type: "confidence", thresholds: { 24: 0.8 } },
  });
});

test("without calibration a number must be given, at any depth, and the refusal says so", () => {
  for (const target of [12, 30]) {
    for (const threshold of [undefined, "calibrated"] as const) {
      const wish = { exit: "confidence" as const, ...(threshold ? { threshold } : {}) };
      expect(() => choosePolicy(EXITS, wish, target, {})).toThrow(
        expect.objectContaining({
          code: "unsupported_exit_policy",
          param: "fathom.threshold",
          message: expect.stringMatching(/give a number.*fathom calibrate/),
        }),
      );
    }
  }
});

test.each<[string, FathomRequest, number, number]>([
  ["the draft's exit may be named", { min_depth: 18 }, 30, 18],
  ["else it is the shallowest", {}, 30, 12],
])("speculative: %s", (_, wish, target, draftDepth) => {
  const chosen = choosePolicy(EXITS, { exit: "speculative", ...wish }, target, {});
  expect(chosen).toEqual({ policy: { type: "speculative", draftDepth } });
});

test("a draft at no exit is refused", () => {
  expect(() => choosePolicy(EXITS, { exit: "speculative", min_depth: 13 }, 30, {})).toThrow(
    expect.objectContaining({ code: "invalid_depth", param: "fathom.min_depth" }),
  );
});

test.each<[FathomRequest, number]>([
  [{ exit: "confidence", threshold: 0.5 }, 12],
  [{ exit: "confidence", threshold: 0.5, min_depth: 24 }, 24],
  [{ exit: "speculative" }, 12],
  [{ exit: "speculative", min_depth: 24 }, 24],
])("where only the target is left, %j is fixed", (wish, target) => {
  expect(choosePolicy(EXITS, wish, target, CALIBRATED)).toEqual({ policy: { type: "fixed" } });
});

test("whatever is asked for and however shallow the answer is made, what is chosen lies within its bounds", () => {
  const exit = fc.constantFrom(...EXITS);
  const wishes = fc.record(
    {
      depth: exit,
      min_depth: exit,
      max_depth: exit,
      exit: fc.constantFrom("fixed" as const, "confidence" as const, "speculative" as const),
    },
    { requiredKeys: ["exit"] },
  );
  fc.assert(
    fc.property(wishes, exit, (wish, maxDepth) => {
      let target: number;
      try {
        target = chooseDepth(EXITS, wish, maxDepth);
      } catch {
        return;
      }
      const { policy, minDepth } = choosePolicy(EXITS, wish, target, CALIBRATED);
      const lowest = wish.min_depth ?? 12;
      if (policy.type === "speculative") expect(policy.draftDepth).toBeLessThan(target);
      if (policy.type === "confidence") {
        expect(minDepth).toBeGreaterThanOrEqual(lowest);
        for (const depth of Object.keys(policy.thresholds).map(Number)) {
          expect(depth).toBeGreaterThanOrEqual(minDepth ?? 0);
          expect(depth).toBeLessThan(target);
        }
      }
      if (policy.type === "fixed" && wish.exit !== "fixed") expect([12, wish.min_depth]).toContain(target);
    }),
  );
});
