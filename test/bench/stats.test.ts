import { expect, test } from "vitest";
import { median, table } from "./stats.ts";

test("median", () => {
  expect(median([3, 1, 2])).toBe(2);
  expect(median([4, 1, 2, 3])).toBe(2.5);
  expect(median([])).toBeNaN();
});

test("table aligns its columns", () => {
  expect(
    table(
      ["depth", "ms"],
      [
        ["9", "1.25"],
        ["30", "10.00"],
      ],
    ),
  ).toBe("depth     ms\n-----  -----\n9       1.25\n30     10.00");
});
