import fc from "fast-check";
import { expect, test } from "vitest";
import { UsedTokens } from "./used-tokens.ts";

test("takes an id once, and again after its time", () => {
  const used = new UsedTokens();
  expect(used.take("a", 10, 0)).toBe("taken");
  expect(used.take("a", 10, 9)).toBe("replayed");
  expect(used.take("b", 10, 9)).toBe("taken");
  expect(used.take("a", 20, 10)).toBe("taken");
});

test("refuses rather than forgets when it is full", () => {
  const used = new UsedTokens(2);
  expect([used.take("a", 10, 0), used.take("b", 10, 0), used.take("c", 10, 0)]).toEqual(["taken", "taken", "full"]);
  expect(used.take("a", 10, 5)).toBe("replayed");
  expect(used.take("c", 20, 10)).toBe("taken");
});

test("no id is taken twice within its time", () => {
  const step = fc.record({
    id: fc.constantFrom("a", "b", "c", "d"),
    after: fc.nat(5),
    life: fc.integer({ min: 1, max: 20 }),
  });
  fc.assert(
    fc.property(fc.array(step), (steps) => {
      const used = new UsedTokens(3);
      const heldUntil = new Map<string, number>();
      let now = 0;
      for (const { id, after, life } of steps) {
        now += after;
        if (used.take(id, now + life, now) !== "taken") continue;
        expect(heldUntil.get(id) ?? 0).toBeLessThanOrEqual(now);
        heldUntil.set(id, now + life);
      }
    }),
  );
});
