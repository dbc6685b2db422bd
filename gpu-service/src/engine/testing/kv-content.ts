import { expect } from "vitest";
import type { KvBank } from "../kv-bank.ts";
import { SMALL, SMALL_SEGMENTS } from "./small-architecture.ts";

/** A sequence that has written `rows` positions of values that are its own. */
export interface Writer {
  id: string;
  seed: number;
  depth: number;
  rows: number;
}

/** Calls `visit` for every value of a sequence's positions, with its place and what belongs there. */
function eachValue(
  bank: KvBank,
  { id, seed, depth }: Writer,
  from: number,
  to: number,
  visit: (values: Float32Array, at: number, value: number) => void,
): void {
  const lane = bank.order.lane(id);
  for (const [segment, range] of SMALL_SEGMENTS.entries()) {
    for (let layer = range.from; layer < Math.min(range.to, depth); layer++) {
      const { keys, values } = bank.layer(segment, layer - range.from);
      for (let head = 0; head < SMALL.kv_heads; head++) {
        for (let position = from; position < to; position++) {
          for (let i = 0; i < SMALL.head_dim; i++) {
            const at = bank.offset(lane, head, position) + i;
            const value = (((seed * 8 + layer) * 4 + head) * 2048 + position) * 2 + i;
            visit(keys, at, value);
            visit(values, at, -value);
          }
        }
      }
    }
  }
}

/** Writes positions up to `end` of a sequence. */
export function writeRows(bank: KvBank, writer: Writer, end: number): void {
  const from = Math.min(writer.rows, end);
  eachValue(bank, writer, from, end, (values, at, value) => {
    if (at >= values.length) throw new RangeError(`offset ${at} of '${writer.id}' is outside its memory`);
    values[at] = Math.fround(value);
  });
  bank.mark(writer.id, end);
  writer.rows = Math.max(writer.rows, end);
}

/** Expects all that a sequence has written to be there. */
export function expectContent(bank: KvBank, writer: Writer): void {
  const wrong: { at: number; value: number | undefined; expected: number }[] = [];
  eachValue(bank, writer, 0, writer.rows, (values, at, expected) => {
    if (values[at] !== Math.fround(expected)) wrong.push({ at, value: values[at], expected });
  });
  expect(wrong.slice(0, 3)).toEqual([]);
}

/** Bytes of the arrays themselves. */
export function allocatedBytes(bank: KvBank): number {
  let bytes = 0;
  for (const [segment, { from, to }] of SMALL_SEGMENTS.entries()) {
    for (let index = 0; index < to - from; index++) {
      const { keys, values } = bank.layer(segment, index);
      bytes += keys.byteLength + values.byteLength;
    }
  }
  return bytes;
}
