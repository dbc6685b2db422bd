import { execFile } from "node:child_process";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { expect, test } from "vitest";

const script = fileURLToPath(new URL("policy.ts", import.meta.url));

async function policy(...args: string[]): Promise<{ stdout: string; stderr: string; code: number }> {
  try {
    return { ...(await promisify(execFile)(process.execPath, [script, ...args])), code: 0 };
  } catch (error) {
    const { stdout, stderr, code } = error as { stdout: string; stderr: string; code: number };
    return { stdout, stderr, code };
  }
}

test("says which depth a plan gets under load, exit by exit", async () => {
  const { stdout, code } = await policy("--plan", "free", "--load", "0.9", "--exits", "6,12,18,24");
  expect(code).toBe(0);
  expect(stdout).toMatch(/ 6 {2}put to the ledger\n +12 {2}at a load of 0\.90 it is too slow for priority 0\n/);
  expect(stdout).toContain("chosen: 6 layers (load)");
});

test("as JSON, with a wish and a budget", async () => {
  const args = ["--plan", "pro", "--fathom", '{"depth": 24}', "--budget", "100", "--max-tokens", "10", "--json"];
  const { offers, chosen } = JSON.parse((await policy(...args)).stdout);
  expect(offers[0]).toMatchObject({
    depth: 24,
    reason: "requested",
    cost_micro_usd: Math.ceil((266 * 24 * 10) / 1000),
  });
  expect(chosen).toMatchObject({ depth: 24 });
});

test.each([
  [["--plan", "golden"], "--plan takes one of free, pro, enterprise"],
  [["--plan", "free", "--load", "full"], "--load takes a number from 0 to 1000, not 'full'"],
  [["--plan", "free", "--exits", "3,2"], "'3,2' is not a list of ascending depths"],
  [["--plan", "free", "--fathom", '{"depth": 30}'], "plan 'free' runs"],
  [["--plan", "free", "--fathom", '{"depth": "deep"}'], "depth"],
])("refuses %j in one line", async (args, message) => {
  const { stderr, code } = await policy(...args);
  expect(code).toBe(2);
  expect(stderr.trim().split("\n")).toHaveLength(1);
  expect(stderr).toContain(message);
});
