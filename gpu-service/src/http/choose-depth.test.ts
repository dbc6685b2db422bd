import { ApiError } from "@fathom/shared";
import fc from "fast-check";
import { expect, test } from "vitest";
import { chooseDepth } from "./choose-depth.ts";

const EXITS = [12, 18, 24, 30];
const NO_LIMIT = Number.POSITIVE_INFINITY;

test.each([
  ["nothing asked for: the full depth", undefined, NO_LIMIT, 30],
  ["auto: the full depth", { depth: "auto" as const }, NO_LIMIT, 30],
  ["auto below the caller's limit", { depth: "auto" as const }, 20, 18],
  ["auto below max_depth", { max_depth: 29 }, NO_LIMIT, 24],
  ["a depth within the bounds", { depth: 18, min_depth: 12, max_depth: 18 }, NO_LIMIT, 18],
  ["a depth at the caller's limit", { depth: 24 }, 24, 24],
])("%s", (_, wish, maxDepth, depth) => {
  expect(chooseDepth(EXITS, wish, maxDepth)).toBe(depth);
});

test.each([
  ["an exit that does not exist", { depth: 20 }, NO_LIMIT, "invalid_depth", "fathom.depth"],
  ["a depth outside its own bounds", { depth: 30, max_depth: 24 }, NO_LIMIT, "invalid_depth", "fathom.depth"],
  ["bounds without an exit", { min_depth: 13, max_depth: 17 }, NO_LIMIT, "invalid_depth", "fathom.min_depth"],
  ["bounds that cross", { min_depth: 24, max_depth: 12 }, NO_LIMIT, "invalid_depth", "fathom.min_depth"],
  ["a limit above which there is nothing", { max_depth: 11 }, NO_LIMIT, "invalid_depth", "fathom.max_depth"],
  ["a depth above the caller's limit", { depth: 30 }, 24, "depth_not_allowed", "fathom.depth"],
  ["a minimum above the caller's limit", { min_depth: 24 }, 18, "depth_not_allowed", "fathom.min_depth"],
  ["a caller below the shallowest exit", undefined, 6, "depth_not_allowed", "fathom.depth"],
])("%s is refused", (_, wish, maxDepth, code, param) => {
  expect(() => chooseDepth(EXITS, wish, maxDepth)).toThrow(expect.objectContaining({ code, param }));
});

test("an unknown depth is told which exits exist", () => {
  expect(() => chooseDepth(EXITS, { depth: 20 }, NO_LIMIT)).toThrow(/exits are 12, 18, 24, 30/);
});

test("whatever is asked for, the depth is an exit within all bounds, and auto takes the deepest of them", () => {
  const layer = fc.integer({ min: 1, max: 40 });
  const wish = fc.record(
    { depth: fc.oneof(fc.constant("auto" as const), layer), min_depth: layer, max_depth: layer },
    { requiredKeys: [] },
  );
  fc.assert(
    fc.property(wish, layer, (asked, maxDepth) => {
      const fits = (exit: number): boolean =>
        exit >= (asked.min_depth ?? 1) && exit <= (asked.max_depth ?? 1024) && exit <= maxDepth;
      const allowed = EXITS.filter(fits).filter((exit) => typeof asked.depth !== "number" || exit === asked.depth);
      if (allowed.length > 0) expect(chooseDepth(EXITS, asked, maxDepth)).toBe(allowed.at(-1));
      else expect(() => chooseDepth(EXITS, asked, maxDepth)).toThrow(ApiError);
    }),
  );
});
