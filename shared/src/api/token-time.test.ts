import { expect, test } from "vitest";
import { tokenTimeProblem } from "./token-time.ts";

const token = { iat: 1000, exp: 1060 };

test.each([970, 1000, 1060, 1090])("holds at %d, within the clocks' difference", (now) => {
  expect(tokenTimeProblem(token, now)).toBeUndefined();
});

test("says which way a clock is wrong, and by how much", () => {
  expect(tokenTimeProblem(token, 700)).toMatch(/not valid yet.* 300 s in the future/);
  expect(tokenTimeProblem(token, 1091)).toMatch(/expired 31 s ago/);
});

test.each([0, -1, 121])("is no token of ours when it lasts %d s", (seconds) => {
  expect(tokenTimeProblem({ iat: 1000, exp: 1000 + seconds }, 1000)).toMatch(/is valid for/);
});
