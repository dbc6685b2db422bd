import { randomStream } from "../../random/random-stream.ts";
import { IGNORED } from "../batch.ts";
import type { Example } from "../data/encode-record.ts";

/** Items 0 … 23, then the end of an answer, the colon behind an instruction, and the tasks. */
const ITEMS = 24;
const END = ITEMS;
const COLON = ITEMS + 1;
const LENGTH = 4;

type Task = (items: readonly number[]) => number[];

/** Instructions on a list of items. Some need one look at the list, some a step of arithmetic, some two steps. */
const TASKS: Task[] = [
  (items) => [...items],
  (items) => items.toReversed(),
  (items) => items.map((item) => (item + 1) % ITEMS),
  (items) => items.toReversed().map((item) => (item + 1) % ITEMS),
  (items) => items.toSorted((x, y) => x - y),
  (items) => [Math.max(...items)],
  (items) => [items.filter((item) => item % 2 === 0).length],
];

export const TOY_VOCABULARY = COLON + 1 + TASKS.length;

/** `count` instructions with answers, as the seed decides. */
export function toyExamples(count: number, seed: number): Example[] {
  const random = randomStream(seed);
  const pick = (n: number) => Math.floor(random() * n);
  return Array.from({ length: count }, () => {
    const items = Array.from({ length: LENGTH }, () => pick(ITEMS));
    const kind = pick(TASKS.length);
    const question = [COLON + 1 + kind, ...items, COLON];
    const tokens = [...question, ...(TASKS[kind]?.(items) ?? []), END];
    return {
      tokens: Int32Array.from(tokens),
      labels: Int32Array.from(tokens, (token, i) => (i < question.length ? IGNORED : token)),
    };
  });
}
