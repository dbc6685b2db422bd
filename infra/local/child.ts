import { type ChildProcess, spawn } from "node:child_process";
import { setTimeout as sleep } from "node:timers/promises";

/** Last lines kept of a child's output, to show when it fails. */
const KEPT_LINES = 30;
const KILL_AFTER_MS = 15_000;

export interface Child {
  readonly name: string;
  /** Resolves when the process ends, whatever the reason. */
  readonly exited: Promise<string>;
  /** SIGTERM to the process group, then SIGKILL if it lingers. */
  stop(): Promise<void>;
  /** The last lines that it printed. */
  tail(): string;
}

/** Starts a process in a group of its own, so that Ctrl-C reaches it only through `stop`. */
export function startChild(
  name: string,
  command: readonly string[],
  options: { cwd?: string; env?: Record<string, string> } = {},
): Child {
  const [file = "", ...args] = command;
  const child = spawn(file, args, {
    cwd: options.cwd,
    env: { ...process.env, ...options.env },
    stdio: ["ignore", "pipe", "pipe"],
    detached: true,
  });
  const lines: string[] = [];
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8");
    stream.on("data", (chunk: string) => {
      lines.push(...chunk.split("\n").filter((line) => line.trim() !== ""));
      lines.splice(0, lines.length - KEPT_LINES);
    });
  }
  const exited = new Promise<string>((resolve) => {
    child.once("error", (error) => resolve(error.message));
    child.once("exit", (code, signal) => resolve(signal ? `signal ${signal}` : `code ${code}`));
  });
  return { name, exited, tail: () => lines.join("\n"), stop: () => stop(child, exited) };
}

async function stop(child: ChildProcess, exited: Promise<string>): Promise<void> {
  signal(child, "SIGTERM");
  const timer = new AbortController();
  const lingering = sleep(KILL_AFTER_MS, "lingering", { signal: timer.signal }).catch(() => "ended");
  if ((await Promise.race([exited, lingering])) === "lingering") signal(child, "SIGKILL");
  timer.abort();
  await exited;
}

function signal(child: ChildProcess, name: NodeJS.Signals): void {
  if (child.pid === undefined || child.exitCode !== null || child.signalCode !== null) return;
  try {
    process.kill(-child.pid, name);
  } catch {
    child.kill(name);
  }
}

/**
 * Waits until `url` answers 2xx.
 * @throws Error with the child's last output when it ends first, or when the time is up.
 */
export async function waitUntilReady(child: Child, url: string, timeoutMs: number): Promise<void> {
  const deadline = Date.now() + timeoutMs;
  let ended: string | undefined;
  void child.exited.then((how) => {
    ended = how;
  });
  while (Date.now() < deadline) {
    if (ended !== undefined) throw new Error(`the ${child.name} ended with ${ended}:\n${child.tail()}`);
    const answer = await fetch(url).catch(() => undefined);
    if (answer?.ok) return;
    await sleep(100);
  }
  throw new Error(`the ${child.name} did not answer at ${url} within ${timeoutMs / 1000} s:\n${child.tail()}`);
}
