import { readdir, readFile } from "node:fs/promises";
import { join } from "node:path";

interface Report {
  numPassedTests: number;
  numFailedTests: number;
  numPendingTests: number;
  success: boolean;
}

// Adds up the results of .ci/run: Vitest's JSON reports, and steps that say ok or failed. Prints "N passed, N failed".
const [dir = "."] = process.argv.slice(2);
let passed = 0;
let failed = 0;
let skipped = 0;
for (const name of await readdir(dir)) {
  const text = await readFile(join(dir, name), "utf8");
  if (name.endsWith(".step")) {
    if (text.trim() === "ok") passed++;
    else failed++;
    console.log(`${name.slice(0, -".step".length)}: ${text.trim()}`);
    continue;
  }
  const report: Report = JSON.parse(text);
  passed += report.numPassedTests;
  // A file that fails to load has no failed test, but the run has not succeeded.
  failed += Math.max(report.numFailedTests, report.success ? 0 : 1);
  skipped += report.numPendingTests;
  console.log(`${name.slice(0, -".json".length)}: ${report.numPassedTests} passed, ${report.numFailedTests} failed`);
}
console.log(`${passed} passed, ${failed} failed${skipped > 0 ? `, ${skipped} skipped` : ""}`);
process.exit(failed === 0 && passed > 0 ? 0 : 1);
