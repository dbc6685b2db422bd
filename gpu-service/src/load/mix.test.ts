import fc from "fast-check";
import { expect, test } from "vitest";
import { randomStream } from "../random/random-stream.ts";
import { assignMix, MixError, parseMix } from "./mix.ts";

const depth = (text: string) => (/^\d+$/.test(text) ? Number(text) : undefined);

test("weights become shares, and a value alone has all", () => {
  expect(parseMix("12:1, 30:3", depth)).toEqual([
    { value: 12, share: 0.25 },
    { value: 30, share: 0.75 },
  ]);
  expect(parseMix("24", depth)).toEqual([{ value: 24, share: 1 }]);
});

test.each(["", "x:1", "12:0", "12:-1", "12:1:2", "12:nan", "12:1,12:2", "12:1,,"])("'%s' is refused", (text) => {
  expect(() => parseMix(text, depth)).toThrow(MixError);
});

test("every value has its share to within one request, in an order that the seed decides", () => {
  const weights = fc.array(fc.integer({ min: 1, max: 1000 }), { minLength: 1, maxLength: 6 });
  fc.assert(
    fc.property(weights, fc.nat({ max: 500 }), fc.nat(), (numbers, count, seed) => {
      const mix = parseMix(numbers.map((weight, i) => `${i}:${weight}`).join(), depth);
      const assigned = assignMix(mix, count, randomStream(seed));
      expect(assigned).toHaveLength(count);
      for (const { value, share } of mix) {
        const got = assigned.filter((one) => one === value).length;
        expect(Math.abs(got - share * count)).toBeLessThan(1 + 1e-6);
      }
      expect(assignMix(mix, count, randomStream(seed))).toEqual(assigned);
    }),
  );
});

test("the order is mixed, not block by block", () => {
  const assigned = assignMix(parseMix("12:0.5,30:0.5", depth), 200, randomStream(1));
  const changes = assigned.filter((value, i) => i > 0 && value !== assigned[i - 1]).length;
  expect(changes).toBeGreaterThan(60);
});
