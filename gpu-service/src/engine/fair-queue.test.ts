import fc from "fast-check";
import { expect, test } from "vitest";
import { FairQueue } from "./fair-queue.ts";
import type { EnginePriority } from "./types.ts";

interface Item {
  id: string;
  priority: EnginePriority;
}

const interactive = (weight = 1): EnginePriority => ({ class: "interactive", weight });
const batch = (weight = 1): EnginePriority => ({ class: "batch", weight });
const share = ({ class: name, weight }: EnginePriority) => weight * (name === "interactive" ? 16 : 1);

class Bench {
  readonly queue = new FairQueue<Item>();
  #created = 0;

  add(priority: EnginePriority, count = 1): string[] {
    return Array.from({ length: count }, () => {
      const id = `r${this.#created++}`;
      this.queue.add(id, priority, { id, priority });
      return id;
    });
  }

  take(ready: (item: Item) => boolean = () => true): Item | undefined {
    const item = this.queue.peek(ready);
    if (item) this.queue.take(item.id);
    return item;
  }

  takeAll(): string[] {
    return Array.from({ length: this.queue.size }, () => this.take()?.id ?? "none");
  }
}

test("of one class and weight, who came first goes first, whatever leaves in between", () => {
  fc.assert(
    fc.property(fc.array(fc.boolean(), { minLength: 1, maxLength: 20, size: "max" }), (leaves) => {
      const bench = new Bench();
      const ids = leaves.map(() => bench.add(interactive())[0] ?? "");
      for (const [i, id] of ids.entries()) if (leaves[i]) expect(bench.queue.remove(id)).toBe(true);
      expect(bench.takeAll()).toEqual(ids.filter((_, i) => !leaves[i]));
      expect(bench.queue.remove(ids[0] ?? "")).toBe(false);
    }),
  );
});

test("flows that always wait are admitted in proportion to their weights, within one admission each", () => {
  const weight = fc.integer({ min: 1, max: 6 });
  fc.assert(
    fc.property(fc.uniqueArray(weight, { minLength: 2, maxLength: 4 }), fc.boolean(), (weights, asBatch) => {
      const bench = new Bench();
      const priorities = weights.map((own) => (asBatch ? batch(own) : interactive(own)));
      for (const priority of priorities) bench.add(priority, 3);
      const admitted = new Map<number, number>();
      const total = weights.reduce((x, y) => x + y, 0);
      for (let n = 1; n <= 10 * total; n++) {
        const item = bench.take();
        if (!item) throw new Error("the queue ran dry");
        bench.add(item.priority);
        admitted.set(item.priority.weight, (admitted.get(item.priority.weight) ?? 0) + 1);
        for (const own of weights) {
          const fair = (n * own) / total;
          expect(Math.abs((admitted.get(own) ?? 0) - fair)).toBeLessThanOrEqual(weights.length);
        }
      }
    }),
    { numRuns: 40 },
  );
});

test("interactive requests go before batch ones that came earlier, but for one in seventeen", () => {
  const bench = new Bench();
  bench.add(batch(), 10);
  bench.add(interactive(), 160);
  const classes = Array.from({ length: 85 }, () => bench.take()?.priority.class);
  expect(classes.slice(0, 15)).toEqual(Array.from({ length: 15 }, () => "interactive"));
  expect(classes.filter((name) => name === "batch").length).toBe(5);
});

test("nobody waits longer than the others' shares allow, whatever comes", () => {
  const priority = fc.record({ class: fc.constantFrom("interactive", "batch"), weight: fc.constantFrom(1, 2, 4) });
  fc.assert(
    fc.property(
      fc.array(fc.record({ priority, takes: fc.nat(2), cancels: fc.boolean(), pick: fc.nat() }), {
        maxLength: 120,
        size: "max",
      }),
      (arrivals) => {
        const bench = new Bench();
        const waiting = new Map<string, { priority: EnginePriority; ahead: number; admitted: number }>();
        const flowOf = (p: EnginePriority) => `${p.class}/${p.weight}`;
        for (const { priority: own, takes, cancels, pick } of arrivals) {
          const [id = ""] = bench.add(own);
          const ahead = [...waiting.values()].filter((other) => flowOf(other.priority) === flowOf(own)).length;
          waiting.set(id, { priority: own, ahead, admitted: 0 });
          if (cancels) {
            const leaver = [...waiting.keys()][pick % waiting.size] ?? "";
            bench.queue.remove(leaver);
            waiting.delete(leaver);
          }
          for (let i = 0; i < takes; i++) {
            const item = bench.take();
            if (!item) continue;
            waiting.delete(item.id);
            for (const one of waiting.values()) one.admitted++;
          }
          // In the virtual time until its tag, every flow is admitted as often as its share says, and once more.
          for (const { priority: p, ahead: before, admitted } of waiting.values()) {
            const span = (before + 1) / share(p);
            let bound = 0;
            for (const name of ["interactive", "batch"] as const) {
              for (const weight of [1, 2, 4]) bound += span * share({ class: name, weight }) + 1;
            }
            expect(admitted).toBeLessThanOrEqual(bound);
          }
        }
        expect(bench.queue.size).toBe(waiting.size);
      },
    ),
  );
});

test("requests that leave unserved do not hold up the later ones of their flow", () => {
  const bench = new Bench();
  for (const id of bench.add(interactive(), 100)) bench.queue.remove(id);
  bench.add(batch(), 3);
  const [late] = bench.add(interactive());
  expect(bench.take()?.id).toBe(late);

  const [, ...leavers] = bench.add(interactive(), 100);
  const [last] = bench.add(interactive());
  for (const id of leavers) bench.queue.remove(id);
  bench.take();
  expect(bench.take()?.id).toBe(last);
});

test("a flow that was idle gains no credit for it", () => {
  const bench = new Bench();
  bench.add(interactive(1), 50);
  for (let i = 0; i < 30; i++) bench.take();
  bench.add(interactive(2), 50);
  const weights = Array.from({ length: 15 }, () => bench.take()?.priority.weight);
  expect(weights.filter((weight) => weight === 1).length).toBeGreaterThanOrEqual(4);
});

test("who is put back goes ahead of its own flow, the first victims last, and behind whom it made way for", () => {
  const bench = new Bench();
  const [first = "", second = ""] = bench.add(batch(), 2);
  const taken = [bench.take(), bench.take()];
  expect(taken.map((item) => item?.id)).toEqual([first, second]);
  const others = bench.add(batch(), 2);
  const [urgent = ""] = bench.add(interactive());
  // The latest gives way first.
  bench.queue.putBack(second, batch(), { id: second, priority: batch() });
  bench.queue.putBack(first, batch(), { id: first, priority: batch() });
  expect(bench.takeAll()).toEqual([urgent, first, second, ...others]);
});

test("who is put back goes ahead of its own flow however long the others have been going", () => {
  const bench = new Bench();
  const [victim = "", next = ""] = bench.add(batch(), 2);
  bench.add(interactive(), 40);
  let item = bench.take();
  while (item?.id !== victim) item = bench.take();
  for (let i = 0; i < 10; i++) bench.take();
  bench.queue.putBack(victim, batch(), { id: victim, priority: batch() });
  const order = bench.takeAll();
  expect(order.indexOf(victim)).toBeLessThan(order.indexOf(next));
});

test("the ones that are not ready are passed over and keep their place", () => {
  const bench = new Bench();
  const [a = "", b = "", c = ""] = bench.add(interactive(), 3);
  expect(bench.take(({ id }) => id !== a)?.id).toBe(b);
  expect(bench.takeAll()).toEqual([a, c]);
  expect(bench.take()).toBeUndefined();
});
