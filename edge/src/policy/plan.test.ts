import { expect, test } from "vitest";
import shipped from "../../plans.json" with { type: "json" };
import { layerRange, parsePlans } from "./plan.ts";

const pro = shipped.pro;

test("reads the shipped plans", () => {
  const plans = parsePlans(shipped, "plans.json");
  expect([...plans.keys()]).toEqual(["free", "pro", "enterprise"]);
});

test("the shipped plans go deeper from one to the next, on checkpoints of any size", () => {
  const plans = [...parsePlans(shipped, "plans.json").values()];
  for (const layers of [8, 30, 32, 40, 80]) {
    const ranges = plans.map((plan) => layerRange(plan, layers));
    for (const field of ["min", "default", "max"] as const) {
      const depths = ranges.map((range) => range[field]);
      expect(depths).toEqual(depths.toSorted((a, b) => a - b));
    }
    expect(new Set(ranges.map((range) => range.default)).size).toBe(3);
  }
});

test.each([
  ["an unknown field", { ...pro, colour: "red" }, /Unrecognized key: "colour"/],
  ["a missing field", { ...pro, priority: undefined }, /plans\.json.*\n {2}pro\.priority: /],
  [
    "a price that is not whole",
    { ...pro, price_nano_usd_per_layer_token: 0.5 },
    /pro\.price_nano_usd_per_layer_token: /,
  ],
  ["a negative budget", { ...pro, monthly_budget_micro_usd: -1 }, /pro\.monthly_budget_micro_usd: /],
  ["a share above the whole", { ...pro, depth: { ...pro.depth, max: "101%" } }, /pro\.depth\.max: must be a share/],
  [
    "mixed units",
    { ...pro, depth: { min: 1, max: "80%", default: "80%" } },
    /pro\.depth: min, max and default must all/,
  ],
  ["an empty range", { ...pro, depth: { min: 24, max: 18, default: 18 } }, /pro\.depth\.min: must not be above max/],
  ["a default outside", { ...pro, depth: { min: 12, max: 18, default: 24 } }, /pro\.depth\.default: must lie between/],
])("names the field: %s", (_, plan, message) => {
  expect(() => parsePlans({ pro: plan }, "plans.json")).toThrow(message);
});

test("names every offending field, and a plan's name", () => {
  const broken = { ...pro, concurrency: 0, max_tokens: "many" };
  expect(() => parsePlans({ pro: broken }, "plans.json")).toThrow(/pro\.concurrency: .*\n.*pro\.max_tokens: /);
  expect(() => parsePlans({ "Pro Plan": pro }, "plans.json")).toThrow(/Pro Plan: a plan's name is/);
  expect(() => parsePlans({}, "plans.json")).toThrow(/at least one plan/);
  expect(() => parsePlans([], "plans.json")).toThrow(/plans\.json/);
});

test("rounds shares into the range", () => {
  const plan = { ...pro, depth: { min: "25%", max: "60%", default: "60%" } };
  expect(layerRange(plan, 30)).toEqual({ min: 8, max: 18, default: 18 });
  expect(layerRange(plan, 8)).toEqual({ min: 2, max: 4, default: 4 });
  expect(layerRange({ ...pro, depth: { min: 6, max: 20, default: 12 } }, 30)).toEqual({ min: 6, max: 20, default: 12 });
});
