import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readdirSync, readFileSync, rmSync, statfsSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { temporaryFolder } from "../checkpoint/testing/temporary-folder.ts";
import { importTiny } from "../train/testing/tiny-model.ts";

const CLI = fileURLToPath(new URL("main.ts", import.meta.url));
const source = fileURLToPath(new URL("../../../test/fixtures/tiny-llama/untied", import.meta.url));
const root = temporaryFolder();
const disk = join(root, "disk");
const base = join(root, "base");
const data = join(root, "data.jsonl");

/** A file system of its own, room for one state of the tiny model (3.8 MB) but not for two; only root may make one. */
const mounted = (() => {
  mkdirSync(disk, { recursive: true });
  const { status } = spawnSync("mount", ["-t", "tmpfs", "-o", "size=6m", "tmpfs", disk]);
  if (status !== 0) console.warn("skipped: a full disk takes the right to mount one");
  return status === 0;
})();

beforeAll(async () => {
  await importTiny("untied", base);
  const record = JSON.stringify({ prompt_tokens: [5, 9], completion_tokens: [12, 7, 3] });
  writeFileSync(data, new Array(60).fill(record).join("\n"));
});

afterAll(() => {
  if (mounted) spawnSync("umount", [disk]);
});

function fathom(...args: string[]) {
  return spawnSync(process.execPath, [CLI, ...args], { encoding: "utf8" });
}

/** Leaves `bytes` free on the disk. */
function fill(bytes: number): void {
  rmSync(join(disk, "filler"), { force: true });
  const { bavail, bsize } = statfsSync(disk);
  writeFileSync(join(disk, "filler"), Buffer.alloc(bavail * bsize - bytes));
}

const settings = ["--base", base, "--data", data, "--method", "soft", "--max-steps", "3"];

test.skipIf(!mounted)("a full disk stops the run by name and leaves the last saved state whole", () => {
  expect(fathom("train", ...settings, "--out", join(root, "roomy")).status).toBe(0);
  const run = join(disk, "run");
  mkdirSync(run);
  for (const file of ["config.json", "metrics.jsonl", "state.bin"]) cpSync(join(root, "roomy", file), join(run, file));
  const before = readFileSync(join(run, "state.bin"));

  const { status, stderr } = fathom("train", "--resume", "--out", run, "--max-steps", "5");
  expect(status).toBe(1);
  expect(stderr).toContain("state.bin: the state could not be saved (ENOSPC");
  expect(readFileSync(join(run, "state.bin")).equals(before)).toBe(true);

  // Not even the metrics fit.
  fill(0);
  const none = fathom("train", "--resume", "--out", run, "--max-steps", "5");
  expect(none.status).toBe(1);
  expect(none.stderr).toMatch(/^fathom: .*run\/[a-z.]+: cannot be written \(ENOSPC.*\)\n$/);
  expect(readFileSync(join(run, "state.bin")).equals(before)).toBe(true);

  cpSync(run, join(root, "moved"), { recursive: true });
  expect(fathom("train", "--resume", "--out", join(root, "moved"), "--max-steps", "5").status).toBe(0);
  rmSync(run, { recursive: true });
});

test.skipIf(!mounted).each([
  ["import", source, "--weights", "fp32"],
  ["quantize", base, "--weights", "fp32"],
  ["export", base, "--dtype", "fp32"],
])("%s to a full disk names the folder and leaves nothing behind", (...args) => {
  fill(500_000);
  const out = join(disk, "out");
  const { status, stderr } = fathom(...args, "--out", out);
  expect(status).toBe(1);
  expect(stderr).toBe(`fathom: ${out}: cannot be written (ENOSPC: no space left on device, write)\n`);
  expect(readdirSync(disk)).toEqual(["filler"]);
});
