import { chmod, readdir, readFile, stat, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { beforeAll, expect, test } from "vitest";
import { importCheckpoint } from "./import-checkpoint.ts";
import { type Checkpoint, openCheckpoint } from "./open-checkpoint.ts";
import { temporaryFolder } from "./testing/temporary-folder.ts";
import { updateManifest } from "./update-manifest.ts";
import { weightsHash } from "./weight-files.ts";

const source = new URL("../../../test/fixtures/tiny-llama/untied", import.meta.url).pathname;
const dir = join(temporaryFolder(), "model");
const path = join(dir, "manifest.json");
let checkpoint: Checkpoint;

beforeAll(async () => {
  await importCheckpoint(source, dir, { exits: [2, 6], weights: "fp32" });
  checkpoint = await openCheckpoint(dir);
});

test("sets facts, keeps the rest: unknown fields and the file's mode too", async () => {
  const json = JSON.parse(await readFile(path, "utf8"));
  await writeFile(path, JSON.stringify({ ...json, later: { version: 2 } }));
  await chmod(path, 0o640);
  await updateManifest(checkpoint, { thresholds: { 2: 0.9 } });
  expect(JSON.parse(await readFile(path, "utf8"))).toEqual({ ...json, later: { version: 2 }, thresholds: { 2: 0.9 } });
  expect((await stat(path)).mode & 0o777).toBe(0o640);
  expect((await openCheckpoint(dir)).manifest.thresholds).toEqual({ 2: 0.9 });
});

test("a fact that does not fit the schema leaves the manifest as it was", async () => {
  const before = await readFile(path, "utf8");
  await expect(updateManifest(checkpoint, { thresholds: { 2: 1.5 } })).rejects.toThrow("thresholds");
  expect(await readFile(path, "utf8")).toBe(before);
  expect((await readdir(dir)).filter((name) => name.includes("partial"))).toEqual([]);
});

test("the weights' hash depends on weight files alone", () => {
  const { manifest } = checkpoint;
  const other = { path: "notes.md", bytes: 1, sha256: "0".repeat(64) };
  expect(weightsHash({ ...manifest, name: "other", files: [other, ...manifest.files] })).toBe(weightsHash(manifest));
  const altered = manifest.files.map((file) => ({ ...file, sha256: "0".repeat(64) }));
  expect(weightsHash({ ...manifest, files: altered })).not.toBe(weightsHash(manifest));
});
