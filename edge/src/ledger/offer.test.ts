import { priceMicroUsd } from "@fathom/shared";
import fc from "fast-check";
import { expect, test } from "vitest";
import { acceptOffer, leastCost, MIN_CLIPPED_TOKENS, type Offer } from "./offer.ts";

const amount = fc.integer({ min: 0, max: 5000 });
const offers = fc
  .array(fc.record({ depth: fc.integer({ min: 1, max: 80 }), cost: amount, keep: amount }), { minLength: 1 })
  .map((list) => list.map((o): Offer => ({ ...o, reason: "plan" })));

test("takes the first offer that is covered with what it keeps, and no other", () => {
  fc.assert(
    fc.property(offers, amount, amount, (list, month, least) => {
      const fits = list.map(({ cost, keep }) => cost <= Math.min(month, least) && cost + keep <= month);
      expect(acceptOffer(list, month, Math.min(month, least))).toBe(list[fits.indexOf(true)]);
    }),
  );
});

const clippable = fc
  .record({
    depth: fc.integer({ min: 1, max: 80 }),
    price: fc.integer({ min: 1, max: 1_000_000 }),
    promptTokens: fc.integer({ min: 1, max: 2000 }),
    wish: fc.integer({ min: 1, max: 4000 }),
  })
  .map(({ depth, price, promptTokens, wish }) => {
    const cost = priceMicroUsd((promptTokens + wish) * depth, price);
    const clip = { promptTokens, nanoUsdPerToken: depth * price };
    const offer: Offer = { depth, reason: "budget", cost, keep: 0, clip };
    return { offer, wish, costOf: (tokens: number) => priceMicroUsd((promptTokens + tokens) * depth, price) };
  });

test("clips to the last token that is covered: one more would not be", () => {
  fc.assert(
    fc.property(clippable, fc.double({ min: 0, max: 1, noNaN: true }), ({ offer, wish, costOf }, share) => {
      const budget = Math.floor(offer.cost * share);
      const got = acceptOffer([offer], budget);
      if (budget >= offer.cost) expect(got).toBe(offer);
      else if (got?.maxTokens === undefined) expect(costOf(MIN_CLIPPED_TOKENS)).toBeGreaterThan(budget);
      else {
        expect(got.cost).toBe(costOf(got.maxTokens));
        expect(got.cost).toBeLessThanOrEqual(budget);
        expect(costOf(got.maxTokens + 1)).toBeGreaterThan(budget);
        expect(got.maxTokens).toBeGreaterThanOrEqual(MIN_CLIPPED_TOKENS);
        expect(got.maxTokens).toBeLessThan(wish);
      }
    }),
  );
});

test("the least cost is where offers begin to be accepted", () => {
  fc.assert(
    fc.property(clippable, ({ offer }) => {
      const least = leastCost([offer]) ?? 0;
      expect(acceptOffer([offer], least)).toBeDefined();
      if (least > 0) expect(acceptOffer([offer], least - 1)).toBeUndefined();
    }),
  );
});

test("does not clip what the plan does not let it", () => {
  expect(acceptOffer([{ depth: 12, reason: "plan", cost: 100, keep: 0 }], 99)).toBeUndefined();
  expect(acceptOffer([], 99)).toBeUndefined();
});
