import fc from "fast-check";
import { expect, test } from "vitest";
import { dayOf, monthOf, untilEnd } from "./windows.ts";

test("windows end with their month and day, in leap years and at the turn of the year", () => {
  expect(untilEnd("day", Date.UTC(2028, 1, 29, 23, 59, 59))).toBe(1000);
  expect(untilEnd("month", Date.UTC(2028, 1, 28))).toBe(2 * 86_400_000);
  expect(untilEnd("month", Date.UTC(2026, 11, 31, 12))).toBe(12 * 3_600_000);
});

test("a moment before its end a window is the same, at its end it is the next", () => {
  const moment = fc.integer({ min: Date.UTC(2020, 0), max: Date.UTC(2100, 0) });
  fc.assert(
    fc.property(moment, (now) => {
      for (const [kind, of] of [
        ["month", monthOf],
        ["day", dayOf],
      ] as const) {
        const left = untilEnd(kind, now);
        expect(left).toBeGreaterThan(0);
        expect(of(now + left - 1)).toBe(of(now));
        expect(of(now + left) > of(now)).toBe(true);
      }
    }),
  );
});
