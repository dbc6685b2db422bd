import fc from "fast-check";
import { expect, test } from "vitest";
import {
  bankOf,
  bytesFor,
  bytesPerRow,
  contextWithin,
  type KvNeed,
  laneCapacity,
  ROW_STEP,
  strideFor,
} from "./kv-layout.ts";
import { SMALL, SMALL_EXITS, SMALL_SEGMENTS } from "./testing/small-architecture.ts";

const rows = fc.integer({ min: 1, max: 5000 });
const need: fc.Arbitrary<KvNeed> = fc.record({ depth: fc.constantFrom(...SMALL_EXITS), rows });
const needs = fc.array(need, { maxLength: 12 });
const bytes = (all: readonly KvNeed[]) => bytesFor(SMALL, SMALL_SEGMENTS, all);

test("a bank is the smallest of 256, 1024, 4096, … that holds the rows", () => {
  expect([1, 256, 257, 1024, 1025, 4096, 4097].map(bankOf)).toEqual([256, 256, 1024, 1024, 4096, 4096, 16_384]);
  fc.assert(
    fc.property(rows, rows, (x, y) => {
      expect(bankOf(x)).toBeGreaterThanOrEqual(x);
      if (x <= y) expect(bankOf(x)).toBeLessThanOrEqual(bankOf(y));
      expect(bankOf(bankOf(x))).toBe(bankOf(x));
    }),
  );
});

test("a stride holds the rows, wastes less than a step, and never leaves the bank", () => {
  expect(strideFor(0)).toBe(ROW_STEP);
  fc.assert(
    fc.property(rows, (x) => {
      expect(strideFor(x) % ROW_STEP).toBe(0);
      expect(strideFor(x)).toBeGreaterThanOrEqual(x);
      expect(strideFor(x) - x).toBeLessThan(ROW_STEP);
      expect(bankOf(strideFor(x))).toBe(bankOf(x));
    }),
  );
});

test("lanes are allocated at most three ahead, and none for nobody", () => {
  expect([0, 1, 2, 3, 4, 5, 8, 9].map(laneCapacity)).toEqual([0, 1, 2, 4, 4, 8, 8, 12]);
  fc.assert(
    fc.property(fc.nat(200), (lanes) => {
      expect(laneCapacity(lanes)).toBeGreaterThanOrEqual(lanes);
      expect(laneCapacity(lanes) - lanes).toBeLessThan(4);
      expect(laneCapacity(lanes + 1)).toBeGreaterThanOrEqual(laneCapacity(lanes));
    }),
  );
});

test("a sequence alone takes its padded rows in each of its layers and nothing above them", () => {
  expect(bytesPerRow(SMALL)).toBe(2 * 2 * 2 * 4);
  fc.assert(
    fc.property(need, (one) => {
      expect(bytes([one])).toBe(one.depth * strideFor(one.rows) * bytesPerRow(SMALL));
    }),
  );
});

test("the longest sequence that can run fits the budget, and one step more would not", () => {
  const budget = fc.integer({ min: 0, max: bytes([{ depth: SMALL_EXITS.at(-1) ?? 0, rows: 6000 }]) });
  fc.assert(
    fc.property(budget, fc.constantFrom(...SMALL_EXITS), (most, depth) => {
      if (bytes([{ depth, rows: 1 }]) > most) {
        expect(() => contextWithin(most, SMALL, depth)).toThrow(`hold no request: at depth ${depth} one takes`);
        return;
      }
      const longest = contextWithin(most, SMALL, depth);
      expect(bytes([{ depth, rows: longest }])).toBeLessThanOrEqual(most);
      if (longest < SMALL.context_length) expect(bytes([{ depth, rows: longest + 1 }])).toBeGreaterThan(most);
      else expect(longest).toBe(SMALL.context_length);
    }),
  );
});

test("bytes hold what is needed, do not depend on the order, and never fall when a sequence comes", () => {
  fc.assert(
    fc.property(needs, need, (all, newcomer) => {
      const bare = all.reduce((sum, { depth, rows: own }) => sum + depth * own * bytesPerRow(SMALL), 0);
      expect(bytes(all)).toBeGreaterThanOrEqual(bare);
      expect(bytes(all.toReversed())).toBe(bytes(all));
      expect(bytes([...all, newcomer])).toBeGreaterThanOrEqual(bytes(all));
      expect(bytes([])).toBe(0);
    }),
  );
});

test("sequences of different banks pay for themselves only", () => {
  fc.assert(
    fc.property(needs, (all) => {
      const banks = Map.groupBy(all, ({ rows: own }) => bankOf(own));
      expect(bytes(all)).toBe([...banks.values()].reduce((sum, members) => sum + bytes(members), 0));
    }),
  );
});
