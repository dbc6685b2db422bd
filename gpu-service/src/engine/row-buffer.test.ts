import fc from "fast-check";
import { expect, test } from "vitest";
import { RowBuffer } from "./row-buffer.ts";

test("holds the rows that were pushed and not cut off, as a plain list does", () => {
  const action = fc.oneof(
    fc.record({ type: fc.constant("push" as const), rows: fc.nat(5) }),
    fc.record({ type: fc.constant("truncate" as const), count: fc.integer({ min: -3, max: 20 }) }),
  );
  fc.assert(
    fc.property(fc.integer({ min: 1, max: 4 }), fc.array(action, { maxLength: 40, size: "max" }), (width, actions) => {
      const buffer = new RowBuffer(width);
      let model: number[][] = [];
      let next = 0;
      for (const a of actions) {
        if (a.type === "push") {
          const rows = Array.from({ length: a.rows }, () => Array.from({ length: width }, () => next++));
          buffer.push(Float32Array.from(rows.flat()));
          model.push(...rows);
        } else {
          buffer.truncate(a.count);
          model = model.slice(0, Math.max(0, a.count));
        }
        expect(buffer.count).toBe(model.length);
        expect([...buffer.values]).toEqual(model.flat());
      }
    }),
  );
});

test("copies what is pushed: the source may change afterwards", () => {
  const buffer = new RowBuffer(2);
  const source = Float32Array.of(1, 2);
  buffer.push(source);
  source.fill(9);
  expect([...buffer.values]).toEqual([1, 2]);
});
