import { readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { CheckpointError } from "../checkpoint-error.ts";
import { bytesOf } from "../float16.ts";
import { gaussian } from "../testing/random.ts";
import { temporaryFolder } from "../testing/temporary-folder.ts";
import { f32, type TestTensor, writeSafetensors } from "../testing/write-safetensors.ts";
import { SafetensorsFile } from "./safetensors.ts";

const dir = temporaryFolder();

let files = 0;
const newPath = () => join(dir, `${files++}.safetensors`);

async function readAll(path: string, name: string, shape: number[]): Promise<number[]> {
  const file = await SafetensorsFile.open(path);
  const values: number[] = [];
  try {
    for await (const chunk of file.read(name, shape)) values.push(...chunk);
  } finally {
    await file.close();
  }
  return values;
}

test("F32, F16 and BF16 widen to the values that they stand for", async () => {
  const path = newPath();
  const values = [0, -0, 1, -2.5, 65504, 2 ** -24, 1e-3];
  const half = Float16Array.from(values);
  // bfloat16 is the upper half of a float32.
  const upper = new Uint16Array(Float32Array.from(values).buffer).filter((_, i) => i % 2 === 1);
  writeSafetensors(path, {
    b: { dtype: "BF16", shape: [7], bytes: bytesOf(upper) },
    h: { dtype: "F16", shape: [7], bytes: bytesOf(half) },
    f: f32([7], Float32Array.from(values)),
  });
  expect(await readAll(path, "f", [7])).toEqual([...Float32Array.from(values)]);
  expect(await readAll(path, "h", [7])).toEqual([...half]);
  const truncated = new Uint32Array(Float32Array.from(values).buffer).map((bits) => bits & 0xffff0000);
  expect(await readAll(path, "b", [7])).toEqual([...new Float32Array(truncated.buffer)]);
});

test("a tensor larger than a chunk arrives in whole rows", async () => {
  const path = newPath();
  const [rows, columns] = [3000, 700];
  const values = gaussian(rows * columns, 1);
  writeSafetensors(path, { w: f32([rows, columns], values) });
  const file = await SafetensorsFile.open(path);
  let done = 0;
  let chunks = 0;
  for await (const chunk of file.read("w", [rows, columns])) {
    expect(chunk.length % columns).toBe(0);
    expect(Buffer.compare(bytesOf(chunk), bytesOf(values.subarray(done, done + chunk.length)))).toBe(0);
    done += chunk.length;
    chunks++;
  }
  await file.close();
  expect(done).toBe(values.length);
  expect(chunks).toBeGreaterThan(1);
});

test("names what is missing, has another shape or an unsupported type", async () => {
  const path = newPath();
  const ids: TestTensor = { dtype: "I64", shape: [1], bytes: new Uint8Array(8) };
  writeSafetensors(path, { w: f32([2, 3], new Float32Array(6)), ids });
  await expect(readAll(path, "v", [2, 3])).rejects.toThrow(`${path}: tensor 'v' is missing`);
  await expect(readAll(path, "w", [3, 2])).rejects.toThrow("tensor 'w' has shape [2,3], but config.json needs [3,2]");
  await expect(readAll(path, "ids", [1])).rejects.toThrow("tensor 'ids' has type I64");
});

const tensors = { a: f32([2], new Float32Array(2)), b: f32([3], new Float32Array(3)) };
type Entry = { dtype: string; shape: number[]; data_offsets: number[] };

test.each<[string, (entries: Record<string, Entry>) => unknown, string]>([
  ["a header that is no object", () => [1], "its header is not a JSON object"],
  ["an entry that is no object", (e) => ({ ...e, a: 3 }), "entry 'a' is malformed"],
  ["negative sizes", (e) => ({ ...e, a: { ...e.a, shape: [-2] } }), "entry 'a' is malformed"],
  ["huge sizes", (e) => ({ ...e, a: { ...e.a, shape: [2 ** 52, 2 ** 52] } }), "do not fit its shape"],
  ["a shape that does not fit", (e) => ({ ...e, a: { ...e.a, shape: [3] } }), "do not fit its shape"],
  ["offsets that run backwards", (e) => ({ ...e, a: { ...e.a, data_offsets: [8, 0] } }), "do not fit its shape"],
  ["overlapping tensors", (e) => ({ ...e, b: { ...e.b, data_offsets: [4, 16] } }), "overlaps another or leaves a hole"],
  ["a hole", (e) => ({ ...e, b: { ...e.b, data_offsets: [12, 24] } }), "overlaps another or leaves a hole"],
  ["bytes that no tensor owns", ({ a }) => ({ a }), "12 bytes follow the last tensor"],
])("refuses %s", async (_, spoil, reason) => {
  const path = newPath();
  writeSafetensors(path, tensors, (entries) => spoil(entries));
  await expect(SafetensorsFile.open(path)).rejects.toThrow(reason);
});

test("refuses a truncated file wherever it is cut, and noise", async () => {
  const path = newPath();
  writeSafetensors(path, tensors);
  const whole = readFileSync(path);
  await fc.assert(
    fc.asyncProperty(fc.integer({ min: 0, max: whole.length - 1 }), async (length) => {
      writeFileSync(path, whole.subarray(0, length));
      const error = await SafetensorsFile.open(path).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(CheckpointError);
    }),
  );
  await fc.assert(
    fc.asyncProperty(fc.uint8Array({ maxLength: 200 }), async (noise) => {
      writeFileSync(path, noise);
      const error = await SafetensorsFile.open(path).catch((reason: unknown) => reason);
      expect(error).toBeInstanceOf(CheckpointError);
    }),
  );
  writeFileSync(path, whole.subarray(0, whole.length - 1));
  await expect(SafetensorsFile.open(path)).rejects.toThrow(
    `is truncated: ${whole.length - 1} of ${whole.length} bytes`,
  );
});

test("a missing file is named", async () => {
  await expect(SafetensorsFile.open(join(dir, "none"))).rejects.toThrow(`${join(dir, "none")}: cannot be read`);
});
