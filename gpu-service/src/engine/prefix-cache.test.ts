import fc from "fast-check";
import { expect, test } from "vitest";
import { BLOCK, PrefixCache } from "./prefix-cache.ts";

/** Values per layer of a block. */
const PER_LAYER = 4;
const blockBytes = (depth: number) => depth * PER_LAYER * Float32Array.BYTES_PER_ELEMENT;

/** A prompt of whole blocks, each of one token over and over, and what is left behind them. */
const promptOf = (blocks: readonly number[], rest = 0) => [
  ...blocks.flatMap((token) => Array.from({ length: BLOCK }, () => token)),
  ...Array.from({ length: rest }, () => 0),
];

/** K/V that says of which block of which prompt it is, and how deep. */
const kvOf = (blocks: readonly number[], index: number, depth: number) =>
  new Float32Array(depth * PER_LAYER).fill(
    blocks.slice(0, index + 1).reduce((hash, token) => hash * 5 + token + 1, 0) * 100 + depth,
  );

const reader = (blocks: readonly number[], depth: number) => (from: number, to: number) => {
  expect([from % BLOCK, to - from]).toEqual([0, BLOCK]);
  return kvOf(blocks, from / BLOCK, depth);
};

interface Entry {
  blocks: readonly number[];
  depth: number;
  used: number;
}

/** The cache as a list of the prefixes it knows, without any tree. */
class Model {
  entries: Entry[] = [];
  limit: number;
  #tick = 0;

  constructor(limit: number) {
    this.limit = limit;
  }

  get bytes(): number {
    return this.entries.reduce((sum, { depth }) => sum + blockBytes(depth), 0);
  }

  known(blocks: readonly number[]): Entry | undefined {
    return this.entries.find((entry) => entry.blocks.join() === blocks.join());
  }

  find(blocks: readonly number[], depth: number): Entry[] {
    this.#tick++;
    const found: Entry[] = [];
    for (let count = 1; count <= blocks.length; count++) {
      const entry = this.known(blocks.slice(0, count));
      if (!entry || entry.depth < depth) break;
      entry.used = this.#tick;
      found.push(entry);
    }
    return found;
  }

  add(blocks: readonly number[], depth: number): void {
    this.#tick++;
    for (let count = 1; count <= blocks.length; count++) {
      const own = blocks.slice(0, count);
      let entry = this.known(own);
      if (!entry) {
        entry = { blocks: own, depth: 0, used: 0 };
        this.entries.push(entry);
      }
      entry.depth = Math.max(entry.depth, depth);
      entry.used = this.#tick;
      this.shrink(entry);
      if (this.bytes > this.limit) {
        this.entries.splice(this.entries.indexOf(entry), 1);
        return;
      }
    }
  }

  /** Drops the least recently used prefixes that no other one continues. */
  shrink(keep?: Entry): void {
    while (this.bytes > this.limit) {
      const leaves = this.entries.filter(
        (entry) =>
          entry !== keep &&
          !this.entries.some(
            ({ blocks }) =>
              blocks.length > entry.blocks.length &&
              blocks.slice(0, entry.blocks.length).join() === entry.blocks.join(),
          ),
      );
      const [oldest] = leaves.toSorted((x, y) => x.used - y.used);
      if (!oldest) return;
      this.entries.splice(this.entries.indexOf(oldest), 1);
    }
  }
}

const blocks = fc.array(fc.nat(2), { maxLength: 4 });
const depth = fc.constantFrom(2, 4, 6);
const action = fc.oneof(
  { weight: 4, arbitrary: fc.record({ type: fc.constant("add" as const), blocks, depth, rest: fc.nat(BLOCK - 1) }) },
  { weight: 4, arbitrary: fc.record({ type: fc.constant("find" as const), blocks, depth, rest: fc.nat(BLOCK - 1) }) },
  { weight: 1, arbitrary: fc.record({ type: fc.constant("limit" as const), blocks: fc.integer({ min: 0, max: 60 }) }) },
);

test("finds, replaces and forgets what a plain list of prefixes does, never above its limit", () => {
  fc.assert(
    fc.property(
      fc.integer({ min: 0, max: 60 }),
      fc.array(action, { maxLength: 40, size: "max" }),
      (layers, actions) => {
        const cache = new PrefixCache(blockBytes(layers));
        const model = new Model(blockBytes(layers));
        for (const a of actions) {
          if (a.type === "add") {
            cache.add(promptOf(a.blocks, a.rest), a.depth, reader(a.blocks, a.depth));
            model.add(a.blocks, a.depth);
          } else if (a.type === "find") {
            const found = cache.find(promptOf(a.blocks, a.rest), a.depth);
            const expected = model.find(a.blocks, a.depth);
            expect(found.length).toBe(expected.length * BLOCK);
            expect(found.blocks).toEqual(
              expected.map((entry, i) => ({ depth: entry.depth, kv: kvOf(a.blocks, i, entry.depth) })),
            );
          } else {
            cache.limit = blockBytes(a.blocks);
            model.limit = blockBytes(a.blocks);
            model.shrink();
          }
          expect(cache.bytes).toBe(model.bytes);
          expect(cache.bytes).toBeLessThanOrEqual(model.limit);
        }
        // What the lists hold in the end is the same, block by block.
        for (const entry of model.entries) {
          expect(cache.find(promptOf(entry.blocks), entry.depth).length).toBe(entry.blocks.length * BLOCK);
          expect(cache.find(promptOf(entry.blocks), entry.depth + 1).length).toBeLessThan(entry.blocks.length * BLOCK);
        }
      },
    ),
  );
});

test("the least recently used leaf goes first, and a use counts for the whole path", () => {
  const cache = new PrefixCache(blockBytes(6));
  const add = (...own: number[]) => cache.add(promptOf(own), 2, reader(own, 2));
  const length = (...own: number[]) => cache.find(promptOf(own), 2).length / BLOCK;
  add(1, 1);
  add(2);
  expect(length(1, 1)).toBe(2);
  add(3);
  expect([length(1, 1), length(2), length(3)]).toEqual([2, 0, 1]);
});

test("does not read what it knows as deep already, and reads only the blocks that it lacks", () => {
  const cache = new PrefixCache(blockBytes(100));
  const read: number[] = [];
  const add = (own: readonly number[], layers: number) =>
    cache.add(promptOf(own), layers, (from, to) => {
      read.push(from / BLOCK);
      return reader(own, layers)(from, to);
    });
  add([1, 2], 4);
  add([1, 2, 3], 4);
  add([1, 2], 2);
  expect(read).toEqual([0, 1, 2]);
  add([1, 2], 6);
  expect(read).toEqual([0, 1, 2, 0, 1]);
  expect(cache.bytes).toBe(2 * blockBytes(6) + blockBytes(4));
});

test("a cache without room keeps nothing", () => {
  const cache = new PrefixCache(0);
  cache.add(promptOf([1, 2]), 4, reader([1, 2], 4));
  expect([cache.bytes, cache.find(promptOf([1, 2]), 4).length]).toEqual([0, 0]);
});

test("prompts share nothing under different salts, and everything under the same one", () => {
  const cache = new PrefixCache(blockBytes(100));
  const lengths = () =>
    [undefined, "acme", "acme|1", "1"].map((salt) => cache.find(promptOf([1, 2]), 4, salt).length / BLOCK);
  cache.add(promptOf([1, 2]), 4, reader([1, 2], 4), "acme");
  expect(lengths()).toEqual([0, 2, 0, 0]);
  cache.add(promptOf([1]), 4, reader([1], 4));
  expect(lengths()).toEqual([1, 2, 0, 0]);
});
