import fc from "fast-check";
import { expect, test } from "vitest";
import shipped from "../../plans.json" with { type: "json" };
import { parsePlans } from "../policy/plan.ts";
import { batchPlan, batchRoom } from "./batch-plan.ts";

const plans = parsePlans(shipped, "plans.json");

test.each([
  [10, 50, 5],
  [9, 50, 5],
  [1, 50, 1],
  [10, 0, 0],
  [10, 100, 10],
  [10, undefined, 5],
])("%i nano-USD at %s percent are %i", (price, percent, expected) => {
  const { batch_price_percent: _, ...plan } = plans.get("pro") ?? expect.fail();
  const own = percent === undefined ? plan : { ...plan, batch_price_percent: percent };
  expect(batchPlan({ ...own, price_nano_usd_per_layer_token: price }).price_nano_usd_per_layer_token).toBe(expected);
});

test("a batch leaves half of rate and concurrency to others, and always has some", () => {
  for (const plan of plans.values()) {
    const own = batchPlan({ ...plan, concurrency: 1 });
    expect(own.concurrency).toBe(1);
    expect(own.requests_per_minute).toBe(plan.requests_per_minute / 2);
  }
});

test("there is room exactly where a service is below the load, and never for more than its capacity gives", () => {
  const service = fc.record({
    load: fc.double({ min: 0, max: 3, noNaN: true }),
    capacity: fc.integer({ min: 1, max: 64 }),
  });
  fc.assert(
    fc.property(fc.array(service, { maxLength: 5 }), fc.integer({ min: 1, max: 100 }), (services, percent) => {
      const maxLoad = percent / 100;
      const room = batchRoom(services, maxLoad);
      expect(room > 0).toBe(services.some(({ load }) => load < maxLoad));
      const most = services.reduce((sum, { capacity }) => sum + Math.ceil(maxLoad * capacity), 0);
      expect(room).toBeLessThanOrEqual(most);
    }),
  );
});
