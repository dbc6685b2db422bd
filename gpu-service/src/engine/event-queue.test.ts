import fc from "fast-check";
import { expect, test, vi } from "vitest";
import { EventQueue } from "./event-queue.ts";

async function collect<T>(queue: EventQueue<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of queue) items.push(item);
  return items;
}

const listener = () => ({ onReturn: vi.fn(), onPause: vi.fn() });

test("hands out items pushed before and while it is read", async () => {
  const queue = new EventQueue<number>(listener());
  queue.push(1);
  const all = collect(queue);
  await Promise.resolve();
  queue.push(2);
  queue.end();
  expect(await all).toEqual([1, 2]);
});

test("throws the error after the items before it", async () => {
  const queue = new EventQueue<number>(listener());
  queue.push(1);
  queue.fail(new Error("broken"));
  const seen: number[] = [];
  await expect(async () => {
    for await (const item of queue) seen.push(item);
  }).rejects.toThrow("broken");
  expect(seen).toEqual([1]);
});

test("a reader that waits gets the error, and the end", async () => {
  const failing = new EventQueue<number>(listener());
  const failed = collect(failing);
  failing.fail(new Error("broken"));
  await expect(failed).rejects.toThrow("broken");

  const ending = new EventQueue<number>(listener());
  const ended = collect(ending);
  ending.end();
  expect(await ended).toEqual([]);
});

test("leaving early tells the producer, once, and not after the end", async () => {
  const { onReturn } = listener();
  const queue = new EventQueue<number>({ onReturn });
  queue.push(1);
  queue.push(2);
  for await (const _ of queue) break;
  queue.push(3);
  expect(onReturn).toHaveBeenCalledTimes(1);

  const ended = new EventQueue<number>({ onReturn });
  ended.end();
  expect(await collect(ended)).toEqual([]);
  expect(onReturn).toHaveBeenCalledTimes(1);
});

test("asks for a pause when 64 items wait, and to go on when 16 are left", async () => {
  const { onReturn, onPause } = listener();
  const queue = new EventQueue<number>({ onReturn, onPause });
  const reader = queue[Symbol.asyncIterator]();
  for (let i = 0; i < 63; i++) queue.push(i);
  expect(onPause).not.toHaveBeenCalled();
  queue.push(63);
  queue.push(64);
  expect(onPause.mock.calls).toEqual([[true]]);
  for (let i = 0; i < 48; i++) await reader.next();
  expect(onPause.mock.calls).toEqual([[true]]);
  expect(await reader.next()).toEqual({ value: 48, done: false });
  expect(onPause.mock.calls).toEqual([[true], [false]]);
  for (let i = 0; i < 48; i++) queue.push(65 + i);
  expect(onPause.mock.calls).toEqual([[true], [false], [true]]);
  expect(onReturn).not.toHaveBeenCalled();
});

test("a reader that keeps up never pauses the producer, and nobody is paused after the end", async () => {
  const { onReturn, onPause } = listener();
  const queue = new EventQueue<number>({ onReturn, onPause });
  const all = collect(queue);
  for (let i = 0; i < 200; i++) {
    queue.push(i);
    await Promise.resolve();
  }
  queue.end();
  expect((await all).length).toBe(200);
  expect(onPause).not.toHaveBeenCalled();

  const lagging = new EventQueue<number>({ onReturn, onPause });
  for (let i = 0; i < 70; i++) lagging.push(i);
  lagging.end();
  onPause.mockClear();
  expect((await collect(lagging)).length).toBe(70);
  expect(onPause).not.toHaveBeenCalled();
});

test("a producer that heeds the pauses never has more than 64 items waiting, and all arrive in order", async () => {
  await fc.assert(
    fc.asyncProperty(fc.array(fc.integer({ min: -40, max: 40 }), { maxLength: 30, size: "max" }), async (moves) => {
      let paused = false;
      const queue = new EventQueue<number>({
        onReturn: () => {},
        onPause: (now) => {
          expect(now).toBe(!paused);
          paused = now;
        },
      });
      const reader = queue[Symbol.asyncIterator]();
      let [pushed, taken] = [0, 0];
      for (const move of moves) {
        for (let i = 0; i < move && !paused; i++) queue.push(pushed++);
        for (let i = 0; i < -move && taken < pushed; i++) {
          expect(await reader.next()).toEqual({ value: taken++, done: false });
        }
        expect(pushed - taken).toBeLessThanOrEqual(64);
        if (pushed - taken <= 16) expect(paused).toBe(false);
      }
    }),
  );
});
