import { randomStream } from "@fathom/gpu-service/random/random-stream.ts";
import { expect, test } from "vitest";
import { arrivals, ramp } from "./traffic.ts";

test("the ramp begins and ends low, and is high in the middle", () => {
  const rate = ramp(1, 5, 100);
  expect([0, 10, 25, 40, 50, 60, 75, 90, 100].map(rate)).toEqual([1, 1, 3, 5, 5, 5, 3, 1, 1]);
});

test("as many arrive as the rate says, where it says", () => {
  const rate = ramp(10, 50, 100);
  const times = arrivals(rate, 50, 100, randomStream(3));
  const within = (from: number, to: number) => times.filter((t) => t >= from && t < to).length;
  expect(times).toEqual(times.toSorted((x, y) => x - y));
  // Expected counts 100, 1000, 900; four standard deviations.
  expect(Math.abs(within(0, 10) - 100)).toBeLessThan(40);
  expect(Math.abs(within(40, 60) - 1000)).toBeLessThan(130);
  expect(Math.abs(within(10, 40) - 900)).toBeLessThan(120);
});
