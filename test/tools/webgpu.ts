import { spawnSync } from "node:child_process";
import { existsSync, mkdtempSync, symlinkSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";

// Runs the parity suite and the gradient oracle on the WebGPU execution provider: on a GPU's Vulkan driver, or on the SwiftShader that Debian's
// chromium ships. Prints why when there is neither.
const SWIFTSHADER = "/usr/lib/chromium/vk_swiftshader_icd.json";
/** The Vulkan loader that comes with it, for machines that have none of their own. */
const CHROMIUM_LOADER = "/usr/lib/chromium/libvulkan.so.1";
const ROOT = fileURLToPath(new URL("../../", import.meta.url));

const drivers = process.env.VK_ICD_FILENAMES ?? (existsSync(SWIFTSHADER) ? SWIFTSHADER : undefined);
if (drivers === undefined) {
  console.log(
    "skipped: WebGPU needs a Vulkan driver (set VK_ICD_FILENAMES, or install Debian's chromium for SwiftShader)",
  );
  process.exit(0);
}
const env = {
  ...process.env,
  ...loaderPath(),
  VK_ICD_FILENAMES: drivers,
  XDG_RUNTIME_DIR: process.env.XDG_RUNTIME_DIR ?? mkdtempSync(join(tmpdir(), "fathom-xdg-")),
  FATHOM_TEST_PROVIDER: "webgpu",
};
const vitest = join(ROOT, "node_modules/vitest/vitest.mjs");
const args = [
  vitest,
  "run",
  // A software driver beside other work takes its time.
  "--testTimeout=900000",
  "--project",
  "gpu-service",
  "gpu-service/src/engine/parity.test.ts",
  "gpu-service/src/engine/kv-exactness.test.ts",
  "gpu-service/src/engine/speculative-decoding.test.ts",
  "gpu-service/src/train/oracle.test.ts",
];
process.exit(spawnSync(process.execPath, args, { cwd: ROOT, env, stdio: "inherit" }).status ?? 1);

/** Library path with the loader alone: the rest of Chromium's folder is not for others. The system's own loader comes first. */
function loaderPath(): { LD_LIBRARY_PATH?: string } {
  if (!existsSync(CHROMIUM_LOADER) || hasSystemLoader()) return {};
  const folder = mkdtempSync(join(tmpdir(), "fathom-vulkan-"));
  symlinkSync(CHROMIUM_LOADER, join(folder, "libvulkan.so.1"));
  return { LD_LIBRARY_PATH: [process.env.LD_LIBRARY_PATH, folder].filter(Boolean).join(":") };
}

function hasSystemLoader(): boolean {
  return spawnSync("ldconfig", ["-p"], { encoding: "utf8" }).stdout?.includes("libvulkan.so.1") ?? false;
}
