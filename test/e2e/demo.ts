import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { setTimeout as sleep } from "node:timers/promises";
import { fileURLToPath } from "node:url";

const START = fileURLToPath(new URL("../../infra/local/start.ts", import.meta.url));

/** What `npm start` writes once everything answers. */
export interface Demo {
  edge: string;
  service: string;
  keys: { free: string; pro: string; enterprise: string };
}

export interface DemoProcess {
  demo: Demo;
  /** Standard output so far. */
  output: () => string;
  child: ChildProcess;
  /** Ctrl-C; resolves with the exit code. */
  interrupt(): Promise<number | null>;
}

/** Runs the start script with the given options. */
export function spawnStart(args: readonly string[]): {
  child: ChildProcess;
  output: () => string;
  exit: Promise<number | null>;
} {
  const child = spawn(process.execPath, [START, ...args], { stdio: ["ignore", "pipe", "pipe"] });
  let text = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (chunk: string) => {
      text += chunk;
    });
  }
  const exit = once(child, "exit").then(([code]) => code as number | null);
  return { child, output: () => text, exit };
}

/** Starts the demo on free ports and waits for its demo.json. */
export async function startDemo(state: string, args: readonly string[]): Promise<DemoProcess> {
  const { child, output, exit } = spawnStart(["--state", state, ...args]);
  const file = join(state, "demo.json");
  for (;;) {
    const text = await readFile(file, "utf8").catch(() => undefined);
    if (text !== undefined) {
      const interrupt = () => {
        child.kill("SIGINT");
        return exit;
      };
      return { demo: JSON.parse(text), output, child, interrupt };
    }
    if (child.exitCode !== null) throw new Error(`npm start ended with ${child.exitCode}: ${output()}`);
    await sleep(100);
  }
}
