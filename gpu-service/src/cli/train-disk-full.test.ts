import { spawnSync } from "node:child_process";
import { cpSync, mkdirSync, readFileSync, writeFileSync } from "node:fs";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, test } from "vitest";
import { temporaryFolder } from "../checkpoint/testing/temporary-folder.ts";
import { importTiny } from "../train/testing/tiny-model.ts";

const CLI = fileURLToPath(new URL("main.ts", import.meta.url));
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

function train(...args: string[]) {
  return spawnSync(process.execPath, [CLI, "train", ...args], { encoding: "utf8" });
}

test.skipIf(!mounted)("a full disk stops the run by name and leaves the last saved state whole", () => {
  const settings = ["--base", base, "--data", data, "--method", "soft", "--max-steps", "3"];
  expect(train(...settings, "--out", join(root, "roomy")).status).toBe(0);
  const run = join(disk, "run");
  mkdirSync(run);
  for (const file of ["config.json", "metrics.jsonl", "state.bin"]) cpSync(join(root, "roomy", file), join(run, file));
  const before = readFileSync(join(run, "state.bin"));

  const { status, stderr } = train("--resume", "--out", run, "--max-steps", "5");
  expect(status).toBe(1);
  expect(stderr).toContain("state.bin: the state could not be saved (ENOSPC");
  expect(readFileSync(join(run, "state.bin")).equals(before)).toBe(true);

  cpSync(run, join(root, "moved"), { recursive: true });
  expect(train("--resume", "--out", join(root, "moved"), "--max-steps", "5").status).toBe(0);
});
