import fc from "fast-check";
import { expect, test } from "vitest";
import { bankOf, bytesFor, strideFor } from "./kv-layout.ts";
import { KvStore } from "./kv-store.ts";
import { allocatedBytes, expectContent, type Writer, writeRows } from "./testing/kv-content.ts";
import { SMALL, SMALL_EXITS, SMALL_SEGMENTS } from "./testing/small-architecture.ts";

/** Around the steps and the ends of banks, where memory moves. */
const rows = fc.oneof(fc.integer({ min: 1, max: 70 }), fc.integer({ min: 250, max: 330 }), fc.constantFrom(1024, 1030));

const action = fc.oneof(
  {
    weight: 3,
    arbitrary: fc.record({ type: fc.constant("add" as const), depth: fc.constantFrom(...SMALL_EXITS), rows }),
  },
  { weight: 3, arbitrary: fc.record({ type: fc.constant("reserve" as const), pick: fc.nat(), rows }) },
  { weight: 4, arbitrary: fc.record({ type: fc.constant("write" as const), pick: fc.nat(), count: fc.nat(60) }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant("release" as const), pick: fc.nat() }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("compact" as const) }) },
);

test("what was written stays readable through growth, moves between banks, releases and compaction", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 16, size: "max" }), (actions) => {
      const store = new KvStore(SMALL, SMALL_SEGMENTS);
      const live = new Map<string, Writer & { room: number }>();
      for (const [step, a] of actions.entries()) {
        const pick = "pick" in a ? [...live.values()][a.pick % Math.max(1, live.size)] : undefined;
        if (a.type === "add") {
          const writer = { id: `s${step}`, seed: step + 1, depth: a.depth, rows: 0, room: a.rows };
          store.reserve(writer.id, a.depth, a.rows);
          live.set(writer.id, writer);
        } else if (a.type === "reserve" && pick) {
          store.reserve(pick.id, pick.depth, a.rows);
          pick.room = Math.max(pick.room, a.rows);
        } else if (a.type === "write" && pick) {
          writeRows(store.bank(pick.id), pick, Math.min(pick.room, pick.rows + a.count));
        } else if (a.type === "release" && pick) {
          store.release(pick.id);
          live.delete(pick.id);
          expect(store.depth(pick.id)).toBe(0);
          expect(() => store.bank(pick.id)).toThrow(RangeError);
        } else if (a.type === "compact") {
          store.compact();
          const needs = [...live.values()].map(({ depth, room }) => ({ depth, rows: room }));
          expect(store.bytes).toBe(bytesFor(SMALL, SMALL_SEGMENTS, needs));
        }
        const banks = new Set([...live.keys()].map((id) => store.bank(id)));
        expect(banks.size).toBe(new Set([...live.values()].map(({ room }) => bankOf(room))).size);
        expect(store.bytes).toBe([...banks].reduce((sum, bank) => sum + allocatedBytes(bank), 0));
        for (const writer of live.values()) {
          expect(store.depth(writer.id)).toBe(writer.depth);
          expect(store.bank(writer.id).stride).toBeGreaterThanOrEqual(strideFor(writer.room));
          expectContent(store.bank(writer.id), writer);
        }
      }
    }),
    { numRuns: 60 },
  );
});

test("asking for less than a sequence has, and freeing one that has nothing, changes nothing", () => {
  const store = new KvStore(SMALL, SMALL_SEGMENTS);
  store.reserve("a", 6, 300);
  const { bytes } = store;
  store.reserve("a", 6, 10);
  store.release("b");
  expect(store.bytes).toBe(bytes);
  store.release("a");
  expect(store.bytes).toBe(0);
});
