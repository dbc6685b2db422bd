import fc from "fast-check";
import { expect, test } from "vitest";
import { SEGMENT } from "../graph/llama-segment.ts";
import { batchFeeds, groupRows, type RowGroup } from "./batch-feeds.ts";
import type { ExecutorRow } from "./executor.ts";
import type { KvBank } from "./kv-bank.ts";
import { KvStore } from "./kv-store.ts";
import { SMALL, SMALL_EXITS, SMALL_SEGMENTS } from "./testing/small-architecture.ts";

const REPEATS = SMALL.heads / SMALL.kv_heads;

interface Scene {
  store: KvStore;
  rows: ExecutorRow[];
}

/** Sequences of any depth and length, of which some have new positions to run. */
const scene: fc.Arbitrary<Scene> = fc
  .array(
    fc.record({
      depth: fc.constantFrom(...SMALL_EXITS),
      from: fc.oneof(fc.constant(0), fc.integer({ min: 1, max: 70 }), fc.integer({ min: 250, max: 300 })),
      count: fc.oneof(fc.integer({ min: 0, max: 6 }), fc.integer({ min: 7, max: 20 })),
    }),
    { minLength: 1, maxLength: 7 },
  )
  .filter((all) => all.some(({ count }) => count > 0))
  .map((all) => {
    const store = new KvStore(SMALL, SMALL_SEGMENTS);
    const rows = all.map(({ from, count }, i) => ({ id: `s${i}`, from, count }));
    for (const [i, { depth, from, count }] of all.entries()) store.reserve(`s${i}`, depth, Math.max(1, from + count));
    return { store, rows: rows.filter(({ count }) => count > 0) };
  });

const groupsOf = ({ store, rows }: Scene) => groupRows(rows, (id) => store.bank(id));

function int64s(group: RowGroup, name: string): { values: number[]; dims: readonly number[] } {
  const tensor = batchFeeds(SMALL, group)[name];
  if (!(tensor?.data instanceof BigInt64Array)) throw new TypeError(`'${name}' is not there`);
  return { values: Array.from(tensor.data, Number), dims: tensor.dims };
}

test("every row is in exactly one group, of its bank, beside rows of a similar number of new positions", () => {
  fc.assert(
    fc.property(scene, (s) => {
      const groups = groupsOf(s);
      const members = groups.flatMap(({ rows }) => rows);
      expect(members.map(({ row }) => row.id).toSorted()).toEqual(s.rows.map(({ id }) => id).toSorted());
      for (const { bank, rows, rowCount, firstLane, laneCount, positions, inOrder } of groups) {
        const counts = rows.map(({ row }) => row.count);
        const lanes = rows.map(({ lane }) => lane);
        expect(rows.every(({ row, lane }) => s.store.bank(row.id) === bank && bank.order.lane(row.id) === lane)).toBe(
          true,
        );
        expect(new Set(lanes).size).toBe(lanes.length);
        expect([firstLane, firstLane + laneCount - 1]).toEqual([Math.min(...lanes), Math.max(...lanes)]);
        expect(rowCount).toBe(counts.reduce((x, y) => x + y, 0));
        expect(positions).toBe(Math.max(...counts));
        expect(positions <= 4 || positions < 2 * Math.min(...counts)).toBe(true);
        expect(inOrder).toBe(groups.length === 1);
        for (const { row, offset } of rows) {
          const before = s.rows.slice(0, s.rows.indexOf(row));
          expect(offset).toBe(before.reduce((sum, { count }) => sum + count, 0));
        }
      }
    }),
  );
});

test("a group's rows keep the order in which they came, as their input is stacked", () => {
  fc.assert(
    fc.property(scene, (s) => {
      for (const { rows } of groupsOf(s)) {
        const offsets = rows.map(({ offset }) => offset);
        expect(offsets).toEqual(offsets.toSorted((x, y) => x - y));
      }
    }),
  );
});

test("slots and rows name each other, and a slot has its row's position", () => {
  fc.assert(
    fc.property(scene, (s) => {
      for (const group of groupsOf(s)) {
        const laneRows = int64s(group, SEGMENT.laneRows);
        const rowSlots = int64s(group, SEGMENT.rowSlots);
        const positions = int64s(group, SEGMENT.positions);
        expect(laneRows.dims).toEqual([group.laneCount, group.positions]);
        expect(positions.dims).toEqual([group.laneCount, group.positions]);
        expect(rowSlots.dims).toEqual([group.rowCount]);
        expect(int64s(group, SEGMENT.split).values).toEqual([group.bank.stride, group.positions]);
        let index = 0;
        for (const { row, lane } of group.rows) {
          for (let i = 0; i < row.count; i++, index++) {
            const slot = (lane - group.firstLane) * group.positions + i;
            expect(rowSlots.values[index]).toBe(slot);
            expect(laneRows.values[slot]).toBe(index);
            expect(positions.values[slot]).toBe(row.from + i);
          }
        }
        // Slots of nobody point somewhere that exists.
        expect(Math.max(...laneRows.values)).toBeLessThan(group.rowCount);
        expect(Math.max(...positions.values)).toBeLessThan(SMALL.context_length);
      }
    }),
  );
});

/** Whether new position `i` of a row may see a column of its lane: the past up to where the row begins, then itself. */
function sees(row: ExecutorRow, i: number, column: number, bank: KvBank): boolean {
  const position = column < bank.stride ? column : row.from + column - bank.stride;
  const holds = column < bank.stride ? column < row.from : column - bank.stride < row.count;
  return holds && position <= row.from + i;
}

test("a new position sees its own lane's past and the new positions up to itself, in every head, and nothing else", () => {
  fc.assert(
    fc.property(scene, (s) => {
      for (const group of groupsOf(s)) {
        const { bank, rows, firstLane, laneCount, positions } = group;
        const tensor = batchFeeds(SMALL, group)[SEGMENT.mask];
        const values = tensor?.data;
        if (!tensor || !(values instanceof Float32Array)) throw new TypeError("there is no mask");
        const repeats = positions === 1 ? 1 : REPEATS;
        const columns = bank.stride + positions;
        expect(tensor.dims).toEqual([laneCount, 1, repeats * positions, columns]);
        const wrong: string[] = [];
        for (const { row, lane } of rows) {
          for (let g = 0; g < repeats; g++) {
            for (let i = 0; i < row.count; i++) {
              const start = (((lane - firstLane) * repeats + g) * positions + i) * columns;
              for (let column = 0; column < columns; column++) {
                const value = values[start + column] ?? Number.NaN;
                const right = sees(row, i, column, bank) ? value === 0 : value <= -1e29;
                if (!right) wrong.push(`${row.id} ${g} ${i} ${column}: ${value}`);
              }
            }
          }
        }
        expect(wrong.slice(0, 3)).toEqual([]);
        const blind = Array.from({ length: laneCount * repeats * positions }, (_, slot) =>
          values.subarray(slot * columns, (slot + 1) * columns).every((value) => value !== 0),
        );
        expect(blind).not.toContain(true);
      }
    }),
    { numRuns: 50 },
  );
});
