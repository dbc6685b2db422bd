import fc from "fast-check";
import { expect, test } from "vitest";
import { KvBank } from "./kv-bank.ts";
import { laneCapacity } from "./kv-layout.ts";
import { allocatedBytes, expectContent, type Writer, writeRows } from "./testing/kv-content.ts";
import { SMALL, SMALL_EXITS, SMALL_SEGMENTS } from "./testing/small-architecture.ts";

const action = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({
      type: fc.constant("add" as const),
      depth: fc.constantFrom(...SMALL_EXITS),
      stride: fc.integer({ min: 1, max: 8 }),
    }),
  },
  { weight: 5, arbitrary: fc.record({ type: fc.constant("write" as const), pick: fc.nat(), count: fc.nat(4) }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant("remove" as const), pick: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("grow" as const), stride: fc.integer({ min: 1, max: 10 }) }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("compact" as const), more: fc.nat(3) }) },
);

test("what was written stays at its sequence's lane while others come and go and the memory grows and shrinks", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 50, size: "max" }), (actions) => {
      const bank = new KvBank(SMALL, SMALL_SEGMENTS);
      const live = new Map<string, Writer>();
      for (const [step, a] of actions.entries()) {
        const pick = "pick" in a ? [...live.values()][a.pick % Math.max(1, live.size)] : undefined;
        const version = bank.version;
        const arrays = SMALL_SEGMENTS.map((_, segment) => bank.layer(segment, 0).keys);
        if (a.type === "add") {
          const writer = { id: `s${step}`, seed: step + 1, depth: a.depth, rows: 0 };
          bank.add(writer.id, a.depth, a.stride);
          live.set(writer.id, writer);
          expect(bank.stride).toBeGreaterThanOrEqual(a.stride);
        } else if (a.type === "write" && pick) {
          writeRows(bank, pick, Math.min(bank.stride, pick.rows + a.count));
        } else if (a.type === "remove" && pick) {
          bank.remove(pick.id);
          live.delete(pick.id);
        } else if (a.type === "grow" && live.size > 0) {
          const before = bank.stride;
          bank.grow(a.stride);
          expect(bank.stride).toBe(Math.max(before, a.stride));
        } else if (a.type === "compact") {
          const stride = Math.max(0, ...[...live.values()].map(({ rows }) => rows)) + a.more;
          bank.compact(stride);
          expect(bank.stride).toBe(stride);
          const lanes = (from: number) => laneCapacity([...live.values()].filter(({ depth }) => depth > from).length);
          const rows = SMALL_SEGMENTS.reduce((sum, { from, to }) => sum + (to - from) * lanes(from) * stride, 0);
          expect(bank.bytes).toBe(rows * 32);
        }
        for (const writer of live.values()) {
          expect(bank.used(writer.id)).toBe(writer.rows);
          expectContent(bank, writer);
        }
        expect(bank.bytes).toBe(allocatedBytes(bank));
        if (live.size === 0) expect(bank.bytes).toBe(0);
        const moved = SMALL_SEGMENTS.some((_, segment) => bank.layer(segment, 0).keys !== arrays[segment]);
        if (moved) expect(bank.version).toBeGreaterThan(version);
      }
    }),
  );
});

test("refuses layers that are not there", () => {
  const bank = new KvBank(SMALL, SMALL_SEGMENTS);
  expect(() => bank.layer(0, 1)).toThrow(RangeError);
  expect(() => bank.layer(3, 0)).toThrow(RangeError);
});
