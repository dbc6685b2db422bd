import { expect, test } from "vitest";
import { ApiError } from "../api/errors.ts";
import { exitsBetween, fullDepth, parseExits, requireExit } from "./exit-set.ts";

test("parses a list of depths", () => {
  expect(parseExits("12, 18,24,30")).toEqual([12, 18, 24, 30]);
  for (const bad of ["", "12,", "12,12", "18,12", "-3", "1.5", "a", "0", "12;18"]) {
    expect(() => parseExits(bad), bad).toThrow("ascending depths");
  }
});

test("finds exits", () => {
  expect(fullDepth([12, 30])).toBe(30);
  expect(exitsBetween([9, 12, 18, 30], 10, 18)).toEqual([12, 18]);
  expect(requireExit([12, 30], 12)).toBe(12);
});

test("an unknown depth names the field and the exits there are", () => {
  expect(() => requireExit([12, 30], 13)).toThrow(ApiError);
  expect(() => requireExit([12, 30], 13)).toThrow("'fathom.depth': there is no exit at depth 13; exits are 12, 30");
});
