/// <reference lib="esnext.float16" />
import type { BlockLayout } from "@fathom/shared";
import fc from "fast-check";
import { expect, test } from "vitest";
import { dequantize } from "./dequantize.ts";
import { encodeRows } from "./encode-rows.ts";
import { quantizeInt4 } from "./quantize-int4.ts";
import { storedBytes } from "./stored-bytes.ts";

const OFFSETS: BlockLayout = { block_size: 32, offsets: true };
const PLAIN: BlockLayout = { ...OFFSETS, offsets: false };

function roundTrip(values: Float32Array, n: number, k: number, layout: BlockLayout): Float32Array {
  const bytes = encodeRows("int4", values, k, layout);
  const sizes = storedBytes("int4", [n, k], layout);
  expect([bytes.data.length, bytes.scales?.length, bytes.zeroPoints?.length]).toEqual([
    sizes.data,
    sizes.scales,
    sizes.zeroPoints,
  ]);
  return dequantize("int4", [n, k], bytes, layout);
}

function squaredError(a: Float32Array, b: Float32Array): number {
  return a.reduce((sum, x, i) => sum + (x - (b[i] ?? 0)) ** 2, 0);
}

test("an affine grid of 16 levels per block, as Q4_1 stores it, comes back within a thirtieth of its step", () => {
  const half = fc.float({ min: Math.fround(0.001), max: 1, noNaN: true }).map((x) => new Float16Array([x])[0] ?? 0);
  const block = fc.record({
    step: half,
    shift: fc.float({ min: -15, max: 0, noNaN: true }),
    codes: fc.array(fc.integer({ min: 0, max: 15 }), { minLength: 30, maxLength: 30 }),
  });
  fc.assert(
    fc.property(fc.array(block, { minLength: 3, maxLength: 3 }), (blocks) => {
      const values = Float32Array.from(
        blocks.flatMap(({ step, shift, codes }) => [0, 15, ...codes].map((q) => step * (q + shift))),
      );
      const restored = roundTrip(values, 1, 96, OFFSETS);
      const widest = Math.max(...blocks.map(({ step }) => step));
      for (let i = 0; i < values.length; i++) {
        expect(Math.abs((values[i] ?? 0) - (restored[i] ?? 0))).toBeLessThan(widest / 30 + 1e-6);
      }
    }),
  );
});

test("rows of several matrices' worth round-trip with a smaller error than without offsets", () => {
  let state = 7;
  const normal = () => {
    let sum = -6;
    for (let i = 0; i < 12; i++) {
      state = (Math.imul(state, 1664525) + 1013904223) >>> 0;
      sum += state / 2 ** 32;
    }
    return sum;
  };
  const values = Float32Array.from({ length: 40 * 160 }, () => normal() * 0.02 + 0.005);
  const withOffsets = squaredError(values, roundTrip(values, 40, 160, OFFSETS));
  const without = squaredError(values, roundTrip(values, 40, 160, PLAIN));
  expect(withOffsets).toBeLessThan(without);
  expect(withOffsets / squaredError(values, new Float32Array(values.length))).toBeLessThan(0.01);
});

test("constant blocks, zeros included, are exact to the offset's precision", () => {
  const values = Float32Array.from({ length: 64 }, (_, i) => (i < 32 ? 0 : 0.75));
  const restored = roundTrip(values, 1, 64, OFFSETS);
  expect(Math.max(...restored.subarray(0, 32).map(Math.abs))).toBeLessThan(1e-6);
  for (const value of restored.subarray(32)) expect(value).toBeCloseTo(0.75, 3);
});

test("a row length that blocks do not divide has no offsets", () => {
  const values = Float32Array.from({ length: 2 * 40 }, (_, i) => Math.sin(i));
  const { data } = quantizeInt4(values, 2, 40);
  expect([...encodeRows("int4", values, 40, OFFSETS).data]).toEqual([...data]);
});
