import fc from "fast-check";
import { expect, test } from "vitest";
import { type LaneMove, LaneOrder } from "./lane-order.ts";

const DEPTHS = [4, 8, 12, 16];

const action = fc.oneof(
  { weight: 3, arbitrary: fc.record({ type: fc.constant("insert" as const), depth: fc.constantFrom(...DEPTHS) }) },
  { weight: 2, arbitrary: fc.record({ type: fc.constant("remove" as const), pick: fc.nat() }) },
);

/** Does what the moves say: `contents` is a lane's memory. */
function replay(moves: readonly LaneMove[], contents: (string | undefined)[]): void {
  for (const { id, from, to } of moves) {
    expect(contents[from]).toBe(id);
    contents[to] = contents[from];
  }
}

test("whatever comes and goes, lanes have no gaps, are deepest first, and the moves keep every sequence's content", () => {
  fc.assert(
    fc.property(fc.array(action, { maxLength: 80, size: "max" }), (actions) => {
      const order = new LaneOrder();
      const depths = new Map<string, number>();
      const contents: (string | undefined)[] = [];
      for (const [step, a] of actions.entries()) {
        const id = a.type === "insert" ? `s${step}` : [...depths.keys()][a.pick % Math.max(1, depths.size)];
        if (id === undefined) continue;
        const moves = a.type === "insert" ? order.insert(id, a.depth) : order.remove(id);
        replay(moves, contents);
        if (a.type === "insert") {
          depths.set(id, a.depth);
          contents[order.lane(id)] = id;
        } else depths.delete(id);

        expect(order.size).toBe(depths.size);
        expect(order.has(id)).toBe(a.type === "insert");
        expect(order.ids.toSorted()).toEqual([...depths.keys()].toSorted());
        expect(order.ids.map((one) => order.lane(one))).toEqual([...order.ids.keys()]);
        expect(contents.slice(0, order.size)).toEqual(order.ids);
        const inOrder = order.ids.map((one) => depths.get(one) ?? 0);
        expect(inOrder).toEqual(inOrder.toSorted((x, y) => y - x));
        for (const layers of [0, ...DEPTHS]) {
          expect(order.deeperThan(layers)).toBe(inOrder.filter((depth) => depth > layers).length);
        }
        const moved = moves.map((move) => depths.get(move.id));
        expect(new Set(moved).size).toBe(moved.length);
      }
    }),
  );
});

test("a newcomer of the shallowest depth and one that leaves from the last lane move nobody", () => {
  const order = new LaneOrder();
  order.insert("deep", 16);
  expect(order.insert("shallow", 4)).toEqual([]);
  expect(order.insert("as shallow", 4)).toEqual([]);
  expect(order.remove("as shallow")).toEqual([]);
  expect(order.insert("deep too", 16)).toEqual([{ id: "shallow", from: 1, to: 2 }]);
});

test("refuses a second lane for a sequence, and to look for one that has none", () => {
  const order = new LaneOrder();
  order.insert("a", 4);
  expect(() => order.insert("a", 8)).toThrow(RangeError);
  expect(() => order.remove("b")).toThrow(RangeError);
  expect(() => order.lane("b")).toThrow(RangeError);
});
