import { mkdtempSync, rmSync } from "node:fs";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll } from "vitest";

/** Makes an empty folder that is removed after the tests of the file. To be called at the top of the file. */
export function temporaryFolder(): string {
  const dir = mkdtempSync(join(tmpdir(), "fathom-test-"));
  afterAll(() => rmSync(dir, { recursive: true, force: true }));
  return dir;
}
