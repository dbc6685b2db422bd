import { appendFile, cp, mkdir, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, describe, expect, test } from "vitest";
import { CheckpointError } from "./checkpoint-error.ts";
import { importCheckpoint } from "./import-checkpoint.ts";
import { openCheckpoint } from "./open-checkpoint.ts";
import { readTensor } from "./read-tensor.ts";
import { temporaryFolder } from "./testing/temporary-folder.ts";

const source = new URL("../../../test/fixtures/tiny-llama/untied", import.meta.url).pathname;
const root = temporaryFolder();
let whole: string;

beforeAll(async () => {
  whole = join(root, "whole");
  await importCheckpoint(source, whole, { exits: [2, 4, 6], weights: "int4" });
});

let copies = 0;
/** A copy of the checkpoint for one test to spoil. */
async function copy(): Promise<string> {
  const dir = join(root, `copy-${copies++}`);
  await cp(whole, dir, { recursive: true });
  return dir;
}

async function failure(dir: string, options: { verify?: boolean } = {}): Promise<CheckpointError> {
  const error = await openCheckpoint(dir, options).catch((reason: unknown) => reason);
  if (error instanceof CheckpointError) return error;
  throw new Error(`no CheckpointError but ${error}`);
}

// biome-ignore lint/suspicious/noExplicitAny: the tests break the manifest's types on purpose.
type AnyManifest = any;

async function editManifest(dir: string, edit: (manifest: AnyManifest) => void): Promise<void> {
  const path = join(dir, "manifest.json");
  const manifest: AnyManifest = JSON.parse(await readFile(path, "utf8"));
  edit(manifest);
  await writeFile(path, JSON.stringify(manifest));
}

test("opens a whole checkpoint", async () => {
  const { dir, manifest } = await openCheckpoint(whole);
  expect(dir).toBe(whole);
  expect(manifest.exits).toEqual([2, 4, 6]);
});

describe("a damaged folder is refused by name", () => {
  test("missing", async () => {
    const error = await failure(join(root, "nowhere"));
    expect(error.message).toBe(`${join(root, "nowhere")}: there is no such folder`);
  });

  test("not a folder", async () => {
    const file = join(root, "file");
    await writeFile(file, "");
    expect((await failure(file)).message).toBe(`${file}: is not a folder`);
  });

  test("without a manifest", async () => {
    const dir = join(root, "empty");
    await mkdir(dir);
    expect((await failure(dir)).message).toBe(`${join(dir, "manifest.json")}: is missing`);
  });

  test("a Hugging Face folder, with a hint", async () => {
    expect((await failure(source)).message).toContain("run `fathom import` on it first");
  });

  test("a missing file", async () => {
    const dir = await copy();
    await rm(join(dir, "weights/00001.bin"));
    expect((await failure(dir, { verify: false })).message).toBe(`${join(dir, "weights/00001.bin")}: is missing`);
  });

  test("a truncated file", async () => {
    const dir = await copy();
    const path = join(dir, "weights/00001.bin");
    const size = (await readFile(path)).length;
    await truncate(path, size - 1);
    expect((await failure(dir, { verify: false })).message).toBe(`${path}: is truncated: ${size - 1} of ${size} bytes`);
  });

  test("a file that grew", async () => {
    const dir = await copy();
    const path = join(dir, "README.md");
    await appendFile(path, "!");
    expect((await failure(dir)).message).toContain(`${path}: has `);
  });

  test("an altered file, but only when files are verified", async () => {
    const dir = await copy();
    const path = join(dir, "weights/00001.bin");
    const bytes = await readFile(path);
    bytes[1234] = (bytes[1234] ?? 0) ^ 1;
    await writeFile(path, bytes);
    expect((await failure(dir)).message).toBe(`${path}: was altered: its SHA-256 differs from the manifest's`);
    expect((await openCheckpoint(dir, { verify: false })).dir).toBe(dir);
  });

  test("a folder in place of a file", async () => {
    const dir = await copy();
    await rm(join(dir, "README.md"));
    await mkdir(join(dir, "README.md"));
    expect((await failure(dir)).message).toContain("README.md: is not a regular file");
  });
});

describe("a malformed manifest is refused by field", () => {
  test.each([
    ["empty", ""],
    ["cut off", '{"format": "fathom-nes'],
    ["an array", "[]"],
    ["null", "null"],
  ])("%s", async (_, text) => {
    const dir = await copy();
    await writeFile(join(dir, "manifest.json"), text);
    const error = await failure(dir);
    expect(error.file).toBe(join(dir, "manifest.json"));
    expect(error.reason).toContain("is malformed");
  });

  const TENSOR = "layers.3.mlp.down";
  test.each<[string, (manifest: AnyManifest) => void, string]>([
    ["another format", (m) => (m.format = "gguf"), "'format'"],
    ["another version", (m) => (m.version = 2), "'version'"],
    ["another architecture", (m) => (m.architecture.type = "mamba"), "the architecture is 'mamba'"],
    ["no architecture", (m) => delete m.architecture, "'architecture'"],
    ["a last exit that is not the full depth", (m) => (m.exits = [2, 4]), "the last exit must be the full depth"],
    ["exits out of order", (m) => (m.exits = [4, 2, 6]), "ascending"],
    ["a path out of the folder", (m) => (m.files[0].path = "../../etc/passwd"), "plain relative path"],
    ["a file listed twice", (m) => m.files.push(m.files[0]), "lists a file twice"],
    ["a block size that no kernel has", (m) => (m.quantization.block_size = 48), "'quantization.block_size': 48"],
    ["a missing tensor", (m) => delete m.tensors[TENSOR], `tensor '${TENSOR}' is missing`],
    ["a tensor too many", (m) => (m.tensors.extra = m.tensors.norm), "tensor 'extra' does not belong"],
    ["a wrong shape", (m) => (m.tensors[TENSOR].shape = [176, 64]), `tensor '${TENSOR}' has shape [176,64]`],
    ["a wrong format", (m) => (m.tensors[TENSOR].format = "int8"), `tensor '${TENSOR}' is int8, but should be int4`],
    ["a quantised vector", (m) => (m.tensors.norm.format = "fp16"), "tensor 'norm' is fp16, but should be fp32"],
    ["missing scales", (m) => delete m.tensors[TENSOR].scales, `tensor '${TENSOR}', 'scales': is missing`],
    [
      "zero points of int8",
      (m) => (m.tensors.embed.zero_points = m.tensors.embed.scales),
      "'zero_points': int8 has none",
    ],
    ["too few bytes", (m) => (m.tensors[TENSOR].data.bytes -= 1), `tensor '${TENSOR}', 'data': has`],
    ["an odd offset", (m) => (m.tensors[TENSOR].data.offset += 1), "is not a multiple of 64"],
    ["a range beyond the file", (m) => (m.tensors[TENSOR].data.offset = 2 ** 30), "lie outside 'weights/00001.bin'"],
    ["a range in an unlisted file", (m) => (m.tensors[TENSOR].data.file = "other.bin"), "'other.bin' is not among"],
  ])("%s", async (_, edit, reason) => {
    const dir = await copy();
    await editManifest(dir, edit);
    const error = await failure(dir);
    expect(error.file).toBe(join(dir, "manifest.json"));
    expect(error.message).toContain(reason);
  });
});

test("int4 without zero points is read around 8", async () => {
  const dir = await copy();
  await editManifest(dir, (manifest) => delete manifest.tensors["layers.0.attn.o"].zero_points);
  const [symmetric, asymmetric] = [await openCheckpoint(dir), await openCheckpoint(whole)];
  const scales = asymmetric.manifest.tensors["layers.0.attn.o"]?.scales;
  expect(scales).toBeDefined();
  const [a, b] = [await readTensor(symmetric, "layers.0.attn.o"), await readTensor(asymmetric, "layers.0.attn.o")];
  const shifts = new Set<number>();
  for (let i = 0; i < 32; i++) shifts.add(Number(((a[i] ?? 0) - (b[i] ?? 0)).toPrecision(4)));
  expect(shifts.size).toBe(1);
});
