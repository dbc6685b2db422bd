import fc from "fast-check";
import { expect, test } from "vitest";
import { chooseOrder } from "./choose-order.ts";

const candidates = fc.array(fc.record({ load: fc.nat(20) }), { minLength: 1, maxLength: 12 });
const draws = fc.infiniteStream(fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }));
const loadOf = ({ load }: { load: number }) => load;

test("every candidate comes once, and the fullest of several never first", () => {
  fc.assert(
    fc.property(candidates, draws, (given, random) => {
      const order = chooseOrder(given, loadOf, () => random.next().value ?? 0);
      expect(new Set(order)).toEqual(new Set(given));
      expect(order).toHaveLength(given.length);
      const loads = given.map(loadOf).sort((a, b) => a - b);
      if (given.length > 1) expect(loadOf(order[0] ?? { load: -1 })).toBeLessThanOrEqual(loads.at(-2) ?? -1);
    }),
  );
});

test("of two the less loaded is always first", () => {
  fc.assert(
    fc.property(fc.nat(9), fc.nat(9), draws, (a, b, random) => {
      const order = chooseOrder([{ load: a }, { load: b }], loadOf, () => random.next().value ?? 0);
      expect(order.map(loadOf)).toEqual([a, b].sort((x, y) => x - y));
    }),
  );
});

test("equally loaded ones share the requests", () => {
  const given = [{ load: 1 }, { load: 1 }, { load: 1 }, { load: 1 }];
  let seed = 1;
  const random = () => {
    seed = (seed * 48_271) % 2_147_483_647;
    return seed / 2_147_483_647;
  };
  const firsts = Array.from({ length: 4000 }, () => chooseOrder(given, loadOf, random)[0]);
  for (const one of given) expect(Math.abs(firsts.filter((first) => first === one).length - 1000)).toBeLessThan(150);
});
