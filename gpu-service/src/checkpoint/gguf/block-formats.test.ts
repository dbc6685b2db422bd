import { expect, test } from "vitest";
import { bytesOf } from "../float16.ts";
import { gaussian, randomNumbers } from "../testing/random.ts";
import { BLOCK_FORMATS } from "./block-formats.ts";

/**
 * A random block and the values that it stands for. Each packs codes and scales where ggml-common.h puts them, which is the
 * opposite way from decoding, so a shared misunderstanding of the layout would show.
 */
interface Sample {
  bytes: Uint8Array;
  values: number[];
}

const random = randomNumbers(11);
const below = (limit: number): number => Math.floor(random() * limit);
const times = <T>(count: number, make: (i: number) => T): T[] => Array.from({ length: count }, (_, i) => make(i));
/** A number that float16 holds. */
const half = (): number => new Float16Array([random() - 0.5])[0] ?? 0;
const halfBytes = (value: number): number[] => [...bytesOf(Float16Array.of(value))];
const f32 = Math.fround;

const samples: Record<string, () => Sample> = {
  Q8_0: () => {
    const d = half();
    const q = times(32, () => below(256) - 128);
    return { bytes: Uint8Array.from([...halfBytes(d), ...q]), values: q.map((code) => f32(d * code)) };
  },
  Q4_0: () => {
    const d = half();
    const q = times(32, () => below(16));
    const nibbles = times(16, (i) => (q[i] ?? 0) + 16 * (q[i + 16] ?? 0));
    return { bytes: Uint8Array.from([...halfBytes(d), ...nibbles]), values: q.map((code) => f32(d * (code - 8))) };
  },
  Q4_1: () => {
    const [d, m] = [half(), half()];
    const q = times(32, () => below(16));
    const nibbles = times(16, (i) => (q[i] ?? 0) + 16 * (q[i + 16] ?? 0));
    const bytes = Uint8Array.from([...halfBytes(d), ...halfBytes(m), ...nibbles]);
    return { bytes, values: q.map((code) => f32(d * code + m)) };
  },
  Q4_K: () => {
    const [d, dmin] = [half(), half()];
    const scales = times(8, () => below(64));
    const minima = times(8, () => below(64));
    const packed = new Uint8Array(12);
    for (let j = 0; j < 4; j++) {
      const [s, m, s4, m4] = [scales[j] ?? 0, minima[j] ?? 0, scales[j + 4] ?? 0, minima[j + 4] ?? 0];
      packed[j] = s + 64 * Math.floor(s4 / 16);
      packed[j + 4] = m + 64 * Math.floor(m4 / 16);
      packed[j + 8] = (s4 % 16) + 16 * (m4 % 16);
    }
    const q = times(256, () => below(16));
    const nibbles = new Uint8Array(128);
    for (const [i, code] of q.entries()) {
      const subBlock = Math.floor(i / 32);
      const at = Math.floor(subBlock / 2) * 32 + (i % 32);
      nibbles[at] = (nibbles[at] ?? 0) + code * (subBlock % 2 === 0 ? 1 : 16);
    }
    const values = q.map((code, i) => {
      const j = Math.floor(i / 32);
      return f32(d * (scales[j] ?? 0) * code - dmin * (minima[j] ?? 0));
    });
    return { bytes: Uint8Array.from([...halfBytes(d), ...halfBytes(dmin), ...packed, ...nibbles]), values };
  },
  Q6_K: () => {
    const d = half();
    const scales = times(16, () => below(256) - 128);
    const q = times(256, () => below(64));
    const lows = new Uint8Array(128);
    const highs = new Uint8Array(64);
    for (const [i, code] of q.entries()) {
      const [part, within] = [Math.floor(i / 128), i % 128];
      const [quarter, column] = [Math.floor(within / 32), within % 32];
      // Quarters 0 and 2 share their low bytes, as do 1 and 3; all four share the high bits.
      const low = part * 64 + (quarter % 2) * 32 + column;
      lows[low] = (lows[low] ?? 0) + (code % 16) * (quarter < 2 ? 1 : 16);
      const high = part * 32 + column;
      highs[high] = (highs[high] ?? 0) + Math.floor(code / 16) * 4 ** quarter;
    }
    const values = q.map((code, i) => f32(d * (scales[Math.floor(i / 16)] ?? 0) * (code - 32)));
    return { bytes: Uint8Array.from([...lows, ...highs, ...scales, ...halfBytes(d)]), values };
  },
  F32: () => {
    const values = gaussian(8, below(1000));
    return { bytes: bytesOf(values), values: [...values] };
  },
  F16: () => {
    const values = Float16Array.from(gaussian(8, below(1000)));
    return { bytes: bytesOf(values), values: [...values] };
  },
  BF16: () => {
    const bits = Uint32Array.from(new Uint32Array(gaussian(8, below(1000)).buffer), (word) => word & 0xffff0000);
    return {
      bytes: bytesOf(Uint16Array.from(bits, (word) => word >>> 16)),
      values: [...new Float32Array(bits.buffer)],
    };
  },
};

test("every format that can be imported has a sample here", () => {
  expect([...BLOCK_FORMATS.values()].map(({ name }) => name).sort()).toEqual(Object.keys(samples).sort());
});

test.each([...BLOCK_FORMATS.values()])("$name blocks decode to the values that were packed", (format) => {
  const blocks = times(20, () => samples[format.name]?.() ?? { bytes: new Uint8Array(), values: [] });
  const raw = Buffer.concat(blocks.map(({ bytes }) => bytes));
  const expected = blocks.flatMap(({ values }) => values);
  expect((raw.length / format.bytes) * format.values).toBe(expected.length);
  const out = new Float32Array(expected.length);
  format.decode(raw, out);
  expect([...out].map((value) => value + 0)).toEqual(expected.map((value) => value + 0));
});
