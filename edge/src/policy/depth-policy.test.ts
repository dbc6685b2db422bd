import { ApiError, type DepthProfile, type FathomRequest } from "@fathom/shared";
import fc from "fast-check";
import { expect, test } from "vitest";
import { acceptOffer } from "../ledger/offer.ts";
import { type DepthInput, decideDepth, depthOffers, loadLimits } from "./depth-policy.ts";
import type { Plan } from "./plan.ts";
import { PLAN } from "./testing.ts";
import { priceOffers } from "./worst-case.ts";

const EXITS = [12, 18, 24, 30];

function offers(wish?: FathomRequest, more: Partial<DepthInput> = {}) {
  return depthOffers({ planName: "pro", plan: PLAN, exits: EXITS, load: 0, wish, ...more });
}

const depths = (...args: Parameters<typeof offers>) => offers(...args).map(({ depth }) => depth);
const first = (...args: Parameters<typeof offers>) => {
  const [offer] = offers(...args);
  return [offer?.depth, offer?.reason];
};

test("without a wish the plan's default comes first, then what a smaller budget leaves", () => {
  expect(offers()).toEqual([
    { depth: 24, reason: "plan", keep: 10_000 },
    { depth: 18, reason: "budget", keep: 5000 },
    { depth: 12, reason: "budget", keep: 0 },
  ]);
  expect(offers({ depth: "auto" })).toEqual(offers());
});

test("a default between two exits is the shallower one, a default below all exits the shallowest", () => {
  expect(first(undefined, { plan: { ...PLAN, depth: { min: 12, max: 24, default: 20 } } })).toEqual([18, "plan"]);
  expect(first(undefined, { plan: { ...PLAN, depth: { min: 1, max: 24, default: 5 } } })).toEqual([12, "plan"]);
});

test("a requested depth is granted as asked, at any load that is not refused, and lowered only by the budget", () => {
  expect(offers({ depth: 18 }, { load: 0.99 })).toEqual([
    { depth: 18, reason: "requested", keep: 0 },
    { depth: 12, reason: "budget", keep: 0 },
  ]);
  expect(depths({ depth: 18, min_depth: 18 })).toEqual([18]);
});

test("bounds move the start and limit what follows", () => {
  expect(first({ max_depth: 20 })).toEqual([18, "requested"]);
  expect(depths({ min_depth: 18 })).toEqual([24, 18]);
  expect(first({ min_depth: 18 })).toEqual([24, "plan"]);
  const shallowDefault = { plan: { ...PLAN, depth: { min: 12, max: 30, default: 12 } } };
  expect(first({ min_depth: 20 }, shallowDefault)).toEqual([24, "requested"]);
});

test("load lowers the depth step by step, later for a higher priority", () => {
  const at = (load: number, priority: number) => first(undefined, { load, plan: { ...PLAN, priority } });
  expect(at(0.5, 0)).toEqual([24, "plan"]);
  expect(at(0.6, 0)).toEqual([18, "load"]);
  expect(at(0.75, 0)).toEqual([12, "load"]);
  expect(at(1, 4)).toEqual([24, "plan"]);
  expect(at(1.2, 4)).toEqual([18, "load"]);
  expect(at(1.5, 4)).toEqual([12, "load"]);
  expect(at(2.3, 9)).toEqual([24, "plan"]);
  expect(at(4, 9)).toEqual([12, "load"]);
});

test("who is refused leaves the depth of a plan four steps above untouched", () => {
  for (let priority = 0; priority <= 5; priority++) {
    expect(loadLimits(priority).refused).toBeLessThanOrEqual(loadLimits(priority + 4).from + 1e-12);
  }
});

test("a plan is refused by load only long after it has come to its shallowest exit", () => {
  for (let priority = 0; priority <= 9; priority++) {
    const { from, to, refused } = loadLimits(priority);
    const at = (load: number) => first(undefined, { load, plan: { ...PLAN, priority } });
    expect(at(from)).toEqual([24, "plan"]);
    expect(at(to)).toEqual([12, "load"]);
    expect(at(refused - 1e-9)).toEqual([12, "load"]);
    expect(() => at(refused)).toThrow(expect.objectContaining({ code: "overloaded", retryAfter: 1 }));
    expect(() => offers({ depth: 24 }, { load: refused, plan: { ...PLAN, priority } })).toThrow("Too many requests");
  }
});

test.each([
  [{ depth: 20 }, "invalid_depth", "fathom.depth", /no exit at depth 20; exits are 12, 18, 24, 30/],
  [
    { depth: 30 },
    "depth_not_allowed",
    "fathom.depth",
    /plan 'pro' runs 12 to 24 layers, which allows exits 12, 18, 24/,
  ],
  [{ min_depth: 25 }, "depth_not_allowed", "fathom.min_depth", /12 to 24 layers/],
  [{ min_depth: 31 }, "invalid_depth", "fathom.min_depth", /exits are 12, 18, 24, 30/],
  [{ max_depth: 11 }, "invalid_depth", "fathom.max_depth", /exits are 12, 18, 24, 30/],
  [{ min_depth: 13, max_depth: 17 }, "invalid_depth", "fathom.min_depth", /no exit lies within/],
  [{ min_depth: 24, max_depth: 18 }, "invalid_depth", "fathom.min_depth", /24 is above max_depth 18/],
  [{ depth: 12, min_depth: 18 }, "invalid_depth", "fathom.depth", /outside min_depth and max_depth/],
] as const)("refuses %j", (wish, code, param, message) => {
  expect(() => offers(wish)).toThrow(message);
  expect(() => offers(wish)).toThrow(expect.objectContaining({ code, param }));
});

test("refuses a depth below the plan's, rather than to run and charge more than was asked", () => {
  const deep = { plan: { ...PLAN, depth: { min: 18, max: 30, default: 30 } } };
  expect(() => offers({ depth: 12 }, deep)).toThrow(expect.objectContaining({ code: "depth_not_allowed" }));
  expect(() => offers({ max_depth: 12 }, deep)).toThrow(expect.objectContaining({ code: "depth_not_allowed" }));
});

test("says so when the plan reaches no exit of the checkpoint", () => {
  expect(() => offers(undefined, { exits: [30] })).toThrow(/none of the exits 30/);
});

/** A profile of EXITS. */
function measured(ms: number[], agreement?: number[]): DepthProfile {
  const exits = EXITS.map((depth, i) => ({
    depth,
    ms_per_token: ms[i] ?? 1,
    ...(agreement === undefined ? {} : { agreement: agreement[i] ?? 1 }),
  }));
  return { version: 1, measured_on: "test", exits };
}

test("under load the profile's times count, not the layers", () => {
  // At a shed of 0.4 (a load of 0.6) layers allow 24 − 0.4 · 12 = 19.2, times 8 − 0.4 · 6 = 5.6 ms.
  expect(first(undefined, { load: 0.6 })).toEqual([18, "load"]);
  expect(first(undefined, { load: 0.6, profile: measured([2, 6, 8, 9]) })).toEqual([12, "load"]);
  expect(first(undefined, { load: 0.6, profile: measured([2, 3, 8, 9]) })).toEqual([18, "load"]);
});

test("an exit that is no better than a shallower one is passed over, unless it was asked for", () => {
  const profile = measured([1, 2, 3, 4], [0.6, 0.8, 0.79, 1]);
  expect(depths(undefined, { profile })).toEqual([18, 12]);
  expect(first({ depth: 24 }, { profile })).toEqual([24, "requested"]);
  expect(depths({ min_depth: 24 }, { profile })).toEqual([24]);
  expect(
    decideDepth({ planName: "pro", plan: PLAN, exits: EXITS, load: 0.75, wish: undefined, profile }).exits,
  ).toEqual([
    { depth: 12, verdict: "offered" },
    { depth: 18, verdict: "load" },
    { depth: 24, verdict: "no_better" },
    { depth: 30, verdict: "plan" },
  ]);
});

test("without a figure for every exit the profile says nothing", () => {
  const { exits, ...rest } = measured([1, 2, 3, 4], [0.6, 0.8, 0.79, 1]);
  expect(offers(undefined, { profile: { ...rest, exits: exits.slice(1) } })).toEqual(offers());
});

test("the verdicts say why the other exits are not offered", () => {
  const verdicts = (wish?: FathomRequest, more: Partial<DepthInput> = {}) =>
    decideDepth({ planName: "pro", plan: PLAN, exits: EXITS, load: 0, wish, ...more }).exits.map(
      ({ verdict }) => verdict,
    );
  const shallow = { plan: { ...PLAN, depth: { min: 12, max: 30, default: 18 } } };
  expect(verdicts(undefined, shallow)).toEqual(["offered", "offered", "above_default", "above_default"]);
  expect(verdicts({ min_depth: 18 })).toEqual(["bounds", "offered", "offered", "plan"]);
  expect(verdicts({ depth: 18 })).toEqual(["offered", "offered", "bounds", "plan"]);
});

/** What an evaluation may have measured, noise and all. */
function profileOf(exits: readonly number[]): fc.Arbitrary<DepthProfile> {
  const measured = exits.map((depth) =>
    fc.record({
      depth: fc.constant(depth),
      ms_per_token: fc.double({ min: 0.5, max: 50, noNaN: true }),
      agreement: fc.constantFrom(0.5, 0.7, 0.9),
    }),
  );
  return fc.tuple(...measured).map((own) => ({ version: 1, measured_on: "test", exits: own }));
}

// Properties of what a request gets in the end: the policy's offers, priced, and one of them accepted.

const exitSet = fc
  .uniqueArray(fc.integer({ min: 1, max: 60 }), { minLength: 1, maxLength: 8 })
  .map((exits) => exits.toSorted((a, b) => a - b));
const range = fc
  .array(fc.integer({ min: 1, max: 60 }), { minLength: 3, maxLength: 3 })
  .map((depths) => depths.toSorted((a, b) => a - b) as [number, number, number])
  .map(([min, preferred, max]) => ({ min, default: preferred, max }));
const wish = fc.option(
  fc.record(
    {
      depth: fc.oneof(fc.constant("auto" as const), fc.integer({ min: 1, max: 60 })),
      min_depth: fc.integer({ min: 1, max: 60 }),
      max_depth: fc.integer({ min: 1, max: 60 }),
    },
    { requiredKeys: [] },
  ),
  { nil: undefined },
);
const load = fc.double({ min: 0, max: 20, noNaN: true });
const budget = fc.integer({ min: 0, max: 1_000_000 });
const profiled = exitSet.chain((exits) =>
  fc.record({ exits: fc.constant(exits), profile: fc.option(profileOf(exits), { nil: undefined }) }),
);
const rest = fc.record({
  depth: range,
  wish,
  load,
  budget,
  priority: fc.integer({ min: 0, max: 9 }),
});
const situation = fc.tuple(profiled, rest).map(([known, others]) => ({ ...known, ...others }));
type Situation = typeof situation extends fc.Arbitrary<infer T> ? T : never;

/** Depth that the request gets; undefined when it is refused, by the policy or for want of budget. */
function decide({ exits, profile, depth, wish, load, budget, priority }: Situation): number | undefined {
  const plan: Plan = { ...PLAN, depth, priority, monthly_budget_micro_usd: 500_000 };
  const worst = { promptTokens: 50, maxTokens: 50, contextLength: 2000, price: 100_000 };
  try {
    const found = depthOffers({ planName: "any", plan, exits, profile, load, wish });
    return acceptOffer(priceOffers(found, worst), budget)?.depth;
  } catch (error) {
    if (error instanceof ApiError) return undefined;
    throw error;
  }
}

test("never goes outside the plan, the exits and the request's bounds", () => {
  fc.assert(
    fc.property(situation, (s) => {
      const depth = decide(s);
      if (depth === undefined) return;
      expect(s.exits).toContain(depth);
      expect(depth).toBeGreaterThanOrEqual(Math.max(s.depth.min, s.wish?.min_depth ?? 1));
      expect(depth).toBeLessThanOrEqual(Math.min(s.depth.max, s.wish?.max_depth ?? 60));
    }),
  );
});

test("offers are deepest first and never repeat", () => {
  fc.assert(
    fc.property(situation, ({ exits, profile, depth, wish, load, priority }) => {
      const input = { planName: "any", plan: { ...PLAN, depth, priority }, exits, profile, load, wish };
      let found: number[] = [];
      try {
        found = depthOffers(input).map((offer) => offer.depth);
      } catch (error) {
        expect(error).toBeInstanceOf(ApiError);
      }
      expect(found).toEqual([...new Set(found)].toSorted((a, b) => b - a));
    }),
  );
});

test("more load never raises the depth", () => {
  fc.assert(
    fc.property(situation, load, (s, other) => {
      const calm = decide({ ...s, load: Math.min(s.load, other) });
      const busy = decide({ ...s, load: Math.max(s.load, other) });
      expect(busy ?? 0).toBeLessThanOrEqual(calm ?? 0);
    }),
  );
});

test("less budget never raises the depth", () => {
  fc.assert(
    fc.property(situation, budget, (s, other) => {
      const rich = decide({ ...s, budget: Math.max(s.budget, other) });
      const poor = decide({ ...s, budget: Math.min(s.budget, other) });
      expect(poor ?? 0).toBeLessThanOrEqual(rich ?? 0);
    }),
  );
});

test("a plan with a deeper range never gets less than a shallower one", () => {
  fc.assert(
    fc.property(situation, range, (s, other) => {
      const fields = ["min", "default", "max"] as const;
      const pick = (choose: (a: number, b: number) => number) =>
        Object.fromEntries(fields.map((field) => [field, choose(s.depth[field], other[field])])) as typeof s.depth;
      const shallow = decide({ ...s, depth: pick(Math.min) });
      const deep = decide({ ...s, depth: pick(Math.max) });
      // A range may begin deeper than the budget or the bounds reach: then the deeper plan has nothing to offer.
      if (deep !== undefined) expect(deep).toBeGreaterThanOrEqual(shallow ?? 0);
    }),
  );
});

test("a higher priority never gets less", () => {
  fc.assert(
    fc.property(situation, (s) => {
      expect(decide({ ...s, priority: 9 }) ?? 0).toBeGreaterThanOrEqual(decide(s) ?? 0);
    }),
  );
});
