import { spawn } from "node:child_process";
import { once } from "node:events";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

const CLI = fileURLToPath(new URL("../../../gpu-service/src/cli/main.ts", import.meta.url));

export const SECRET = "service-secret-for-tests-only";

/** Runs a `fathom` command to its end. */
export async function fathom(
  args: readonly string[],
  env: Record<string, string> = {},
): Promise<{ code: number | null; stdout: string; stderr: string }> {
  const child = spawn(process.execPath, [CLI, ...args], { env: { ...process.env, ...env } });
  let stdout = "";
  let stderr = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    stdout += text;
  });
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  const [code] = (await once(child, "close")) as [number | null];
  return { code, stdout, stderr };
}

type LogLine = Record<string, unknown>;

export interface ServiceProcess {
  url: string;
  /** What it printed on stdout until it was ready. */
  banner: string;
  /** Parsed log lines so far. */
  log: readonly LogLine[];
  /** Waits for a log line, also one that has been written already. */
  logged(matches: (line: LogLine) => boolean): Promise<LogLine>;
  signal(name: NodeJS.Signals): void;
  /** Resolves when the process has ended. */
  exited: Promise<{ code: number | null; signal: NodeJS.Signals | null }>;
  /** Ends it, if it still runs. */
  stop(): Promise<void>;
}

/** How the process itself is to run. */
export interface ProcessOptions {
  /** Arguments of Node, before the command. */
  nodeArgs?: readonly string[];
  env?: Record<string, string>;
}

/** Starts `fathom serve` on a free port as a user would, and waits until it is ready. */
export async function serviceProcess(
  dir: string,
  args: readonly string[] = [],
  { nodeArgs = [], env = {} }: ProcessOptions = {},
): Promise<ServiceProcess> {
  const child = spawn(process.execPath, [...nodeArgs, CLI, "serve", dir, "--port", "0", ...args], {
    env: { ...process.env, FATHOM_SERVICE_SECRET: SECRET, ...env },
    stdio: ["ignore", "pipe", "pipe"],
  });
  const log: LogLine[] = [];
  const raw: string[] = [];
  const waiting = new Set<() => void>();
  createInterface(child.stderr).on("line", (line) => {
    raw.push(line);
    if (line.startsWith("{")) log.push(JSON.parse(line));
    for (const wake of waiting) wake();
  });
  let banner = "";
  child.stdout.setEncoding("utf8").on("data", (text: string) => {
    banner += text;
  });
  const exited = once(child, "exit").then(([code, signal]) => {
    for (const wake of waiting) wake();
    return { code, signal };
  });
  const logged = async (matches: (line: LogLine) => boolean): Promise<LogLine> => {
    for (;;) {
      const line = log.find(matches);
      if (line) return line;
      if (child.exitCode !== null) throw new Error(`the service ended with ${child.exitCode}: ${raw.join("\n")}`);
      await new Promise<void>((resolve) => {
        const wake = (): void => {
          waiting.delete(wake);
          resolve();
        };
        waiting.add(wake);
      });
    }
  };
  const { url } = await logged((line) => line.event === "ready");
  return {
    url: String(url),
    get banner() {
      return banner;
    },
    log,
    logged,
    signal: (name) => child.kill(name),
    exited,
    stop: async () => {
      if (child.exitCode === null && child.signalCode === null) child.kill("SIGKILL");
      await exited;
    },
  };
}
