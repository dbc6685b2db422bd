import { execFile } from "node:child_process";
import { readFileSync } from "node:fs";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { type DemoProcess, startDemo } from "../e2e/demo.ts";
import { GGUF } from "./smollm2.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const DEFAULT_EDGE = "http://127.0.0.1:8787";

/** The commands of a document: its `sh` blocks. */
function commands(document: string): string[] {
  const text = readFileSync(`${ROOT}${document}`, "utf8");
  return [...text.matchAll(/^```sh\n(.*?)^```$/gms)].map((match) => match[1] ?? "");
}

async function run(script: string): Promise<{ stdout: string; stderr: string }> {
  const env = { ...process.env, npm_config_loglevel: "error" };
  return promisify(execFile)("bash", ["-euo", "pipefail", "-c", script], { cwd: ROOT, env, maxBuffer: 1 << 26 });
}

describe.skipIf(GGUF === undefined)("the documents' commands", () => {
  let demo: DemoProcess;

  beforeAll(async () => {
    demo = await startDemo(`${ROOT}.fathom`, []);
  });

  afterAll(async () => {
    expect(await demo.interrupt()).toBe(0);
  });

  test.each(commands("README.md"))("README: %s", async (script) => {
    const { stdout } = await run(script.replaceAll(DEFAULT_EDGE, demo.demo.edge));
    expect(stdout).not.toContain('"error"');
    expect(stdout.length).toBeGreaterThan(100);
    if (script.includes("curl")) expect(stdout).toContain('"layer_tokens"');
    if (script.includes("fathom inspect")) expect(stdout).toContain("verified");
  });

  test.each(commands("CONTRIBUTING.md"))("CONTRIBUTING: %s", async (script) => {
    const { stdout } = await run(script);
    expect(stdout).toContain("SmolLM2-135M-Instruct.Q4_1.gguf");
    expect(stdout).toContain('"loss_per_exit"');
  });

  test("every npm script that the documents name exists", () => {
    const { scripts }: { scripts: Record<string, string> } = JSON.parse(readFileSync(`${ROOT}package.json`, "utf8"));
    const text = readFileSync(`${ROOT}README.md`, "utf8") + readFileSync(`${ROOT}CONTRIBUTING.md`, "utf8");
    const named = [...text.matchAll(/npm run ([a-z:-]+)/g)].map((match) => match[1] ?? "");
    expect(named.length).toBeGreaterThan(3);
    for (const name of named) expect(scripts, name).toHaveProperty([name]);
  });
});
