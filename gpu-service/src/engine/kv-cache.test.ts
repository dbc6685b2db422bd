import fc from "fast-check";
import { expect, test } from "vitest";
import { KvCache } from "./kv-cache.ts";

test("holds what was appended, in order, through every growth", () => {
  fc.assert(
    fc.property(fc.array(fc.integer({ min: 1, max: 90 }), { minLength: 1, maxLength: 8 }), (chunks) => {
      const cache = new KvCache(2, 3, 1000);
      const expected: number[][] = [[], []];
      let next = 0;
      for (const rows of chunks) {
        cache.reserve(rows);
        for (const layer of [0, 1]) {
          const keys = Float32Array.from({ length: rows * 3 }, () => next++);
          cache.write(
            layer,
            keys,
            keys.map((x) => -x),
          );
          expected[layer]?.push(...keys);
        }
        cache.commit(rows);
      }
      for (const layer of [0, 1]) {
        expect([...cache.keys(layer)]).toEqual(expected[layer]);
        expect([...cache.values(layer)]).toEqual(expected[layer]?.map((x) => -x));
      }
      expect(cache.length).toBe(chunks.reduce((x, y) => x + y));
    }),
  );
});

test("refuses to grow beyond the context, and a layer above its depth", () => {
  const cache = new KvCache(1, 2, 10);
  cache.reserve(10);
  expect(() => cache.reserve(11)).toThrow("do not fit a context of 10");
  expect(() => cache.keys(1)).toThrow("layer 1");
  expect(cache.bytes).toBe(2 * 10 * 2 * 4);
});
