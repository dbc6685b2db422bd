import { expect, test, vi } from "vitest";
import { EventQueue } from "./event-queue.ts";

async function collect<T>(queue: EventQueue<T>): Promise<T[]> {
  const items: T[] = [];
  for await (const item of queue) items.push(item);
  return items;
}

test("hands out items pushed before and while it is read", async () => {
  const queue = new EventQueue<number>(() => {});
  queue.push(1);
  const all = collect(queue);
  await Promise.resolve();
  queue.push(2);
  queue.end();
  expect(await all).toEqual([1, 2]);
});

test("throws the error after the items before it", async () => {
  const queue = new EventQueue<number>(() => {});
  queue.push(1);
  queue.fail(new Error("broken"));
  const seen: number[] = [];
  await expect(async () => {
    for await (const item of queue) seen.push(item);
  }).rejects.toThrow("broken");
  expect(seen).toEqual([1]);
});

test("leaving early tells the producer, once, and not after the end", async () => {
  const left = vi.fn();
  const queue = new EventQueue<number>(left);
  queue.push(1);
  queue.push(2);
  for await (const _ of queue) break;
  queue.push(3);
  expect(left).toHaveBeenCalledTimes(1);

  const ended = new EventQueue<number>(left);
  ended.end();
  expect(await collect(ended)).toEqual([]);
  expect(left).toHaveBeenCalledTimes(1);
});
