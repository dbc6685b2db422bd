import fc from "fast-check";
import { expect, test } from "vitest";
import { randomStream } from "../random/random-stream.ts";
import { arrivalTimes } from "./arrivals.ts";

const COUNT = 20_000;

function gaps(rate: number, burstiness: number): { mean: number; variation: number } {
  const times = arrivalTimes(COUNT, { rate, burstiness }, randomStream(7));
  const all = times.map((time, i) => time - (times[i - 1] ?? 0));
  const mean = all.reduce((sum, gap) => sum + gap, 0) / COUNT;
  const variance = all.reduce((sum, gap) => sum + (gap - mean) ** 2, 0) / COUNT;
  return { mean, variation: Math.sqrt(variance) / mean };
}

test("Poisson gaps have the rate's mean and a coefficient of variation of 1", () => {
  const { mean, variation } = gaps(4, 1);
  // The standard error of the mean is 250 / sqrt(20,000) = 1.8 ms.
  expect(mean).toBeGreaterThan(243);
  expect(mean).toBeLessThan(257);
  expect(variation).toBeCloseTo(1, 1);
});

test("Poisson counts per second have a variance like their mean", () => {
  const times = arrivalTimes(COUNT, { rate: 10, burstiness: 1 }, randomStream(3));
  const seconds = Math.floor((times.at(-1) ?? 0) / 1000);
  const counts = Array.from({ length: seconds }, () => 0);
  for (const time of times) {
    const second = Math.floor(time / 1000);
    if (second < seconds) counts[second] = (counts[second] ?? 0) + 1;
  }
  const mean = counts.reduce((sum, count) => sum + count, 0) / seconds;
  const variance = counts.reduce((sum, count) => sum + (count - mean) ** 2, 0) / seconds;
  expect(variance / mean).toBeGreaterThan(0.85);
  expect(variance / mean).toBeLessThan(1.15);
});

test("burstiness changes the spread of the gaps, not their mean", () => {
  for (const burstiness of [0.25, 4]) {
    const { mean, variation } = gaps(20, burstiness);
    expect(mean / 50).toBeGreaterThan(0.95);
    expect(mean / 50).toBeLessThan(1.05);
    expect(variation * Math.sqrt(burstiness)).toBeCloseTo(1, 1);
  }
});

test("the same seed gives the same times, in order, and fewer requests are a prefix of more", () => {
  const process = fc.record({
    rate: fc.double({ min: 0.01, max: 1e4, noNaN: true }),
    burstiness: fc.constantFrom(0.3, 1, 5),
  });
  fc.assert(
    fc.property(process, fc.nat(), fc.integer({ min: 1, max: 50 }), (arrivals, seed, count) => {
      const times = arrivalTimes(count, arrivals, randomStream(seed));
      expect(times).toEqual(times.toSorted((x, y) => x - y));
      expect(times.every((time) => time >= 0)).toBe(true);
      expect(arrivalTimes(count + 5, arrivals, randomStream(seed)).slice(0, count)).toEqual(times);
    }),
  );
});
