import { execFile } from "node:child_process";
import { mkdtemp, readdir, readFile, rm } from "node:fs/promises";
import { createRequire } from "node:module";
import { tmpdir } from "node:os";
import { dirname, join } from "node:path";
import { fileURLToPath } from "node:url";
import { promisify } from "node:util";
import { convertV4MiniflareOptions, Miniflare, type V4MiniflareOptions } from "miniflare";
import { unstable_getMiniflareWorkerOptions } from "wrangler";

const EDGE = fileURLToPath(new URL("../../../edge/", import.meta.url));
/** Kernel ticks of `/proc/PID/stat`, per second. */
const TICKS = 100;

/** Name of the worker that is measured. */
export const WORKER = "bench";

/** A worker in a workerd process of its own. */
export interface WorkerProcess {
  url: string;
  /** Where the worker's isolate can be profiled. */
  inspector: string;
  /** CPU seconds that the process has used. */
  cpuSeconds(): Promise<number>;
  stop(): Promise<void>;
}

/** The router's modules, built once. */
let built: Promise<Module[]> | undefined;

/** Builds the router as it is deployed and runs it with the bindings of wrangler.jsonc, all of them local. */
export async function startEdge(
  variables: Record<string, string>,
  onLog: (line: string) => void = () => undefined,
): Promise<WorkerProcess> {
  built ??= buildEdge();
  const { workerOptions } = unstable_getMiniflareWorkerOptions(join(EDGE, "wrangler.jsonc"));
  const { bindings, ...options } = workerOptions as { bindings?: object };
  const bound = { ...options, bindings: { ...bindings, ...variables } } as Partial<V4MiniflareOptions>;
  return await start(bound, await built, onLog);
}

async function buildEdge(): Promise<Module[]> {
  const out = await mkdtemp(join(tmpdir(), "fathom-bench-edge-"));
  const wrangler = join(dirname(createRequire(import.meta.url).resolve("wrangler/package.json")), "bin/wrangler.js");
  const args = [wrangler, "deploy", "--dry-run", "--outdir", out, "--minify"];
  await promisify(execFile)(process.execPath, args, {
    cwd: EDGE,
    env: { ...process.env, WRANGLER_SEND_METRICS: "false" },
  });
  const modules = await readModules(out);
  await rm(out, { recursive: true });
  return modules;
}

/** A worker that passes every request on and does nothing else. */
export function startPassThrough(upstream: string): Promise<WorkerProcess> {
  const script = `export default {
    fetch(request) {
      const { pathname } = new URL(request.url);
      return fetch(${JSON.stringify(upstream)} + pathname, request);
    },
  };`;
  return start({ compatibilityDate: "2026-11-01" }, [{ type: "ESModule", path: "index.js", contents: script }]);
}

interface Module {
  type: "ESModule" | "Text";
  path: string;
  contents: string;
}

/** What wrangler has built: the script first, then the texts that it imports. */
async function readModules(dir: string): Promise<Module[]> {
  const names = (await readdir(dir))
    .filter((name) => /\.(js|sql)$/.test(name))
    .sort((a) => (a === "index.js" ? -1 : 1));
  return await Promise.all(
    names.map(async (name) => ({
      type: name.endsWith(".js") ? ("ESModule" as const) : ("Text" as const),
      path: name,
      contents: await readFile(join(dir, name), "utf8"),
    })),
  );
}

async function start(
  options: Partial<V4MiniflareOptions>,
  modules: Module[],
  onLog: (line: string) => void = () => undefined,
): Promise<WorkerProcess> {
  const before = new Set(await workerds());
  const miniflare = new Miniflare(
    convertV4MiniflareOptions({
      ...options,
      modules,
      modulesRoot: "/",
      host: "127.0.0.1",
      port: 0,
      inspectorPort: 0,
      name: WORKER,
      // One line of log per request is the worker's work; printing it is not.
      handleStructuredLogs: ({ message }) => onLog(message),
    } as V4MiniflareOptions),
  );
  const url = (await miniflare.ready).origin;
  const pid = (await workerds()).find((known) => !before.has(known));
  const inspector = `http://${(await miniflare.getInspectorURL()).host}`;
  return { url, inspector, cpuSeconds: () => cpuSeconds(pid), stop: () => miniflare.dispose() };
}

/** Process ids of this process's workerd children. */
async function workerds(): Promise<string[]> {
  const found: string[] = [];
  for (const pid of (await readdir("/proc")).filter((name) => /^\d+$/.test(name))) {
    const stat = await readFile(`/proc/${pid}/stat`, "utf8").catch(() => "");
    const [, name, parent] = /^\d+ \((.*)\) \S (\d+)/.exec(stat) ?? [];
    if (name === "workerd" && Number(parent) === process.pid) found.push(pid);
  }
  return found;
}

async function cpuSeconds(pid: string | undefined): Promise<number> {
  if (pid === undefined) return Number.NaN;
  // Behind the name, which may hold spaces: state is the 3rd field, utime and stime the 14th and 15th.
  const fields = (await readFile(`/proc/${pid}/stat`, "utf8")).replace(/^.*\) /s, "").split(" ");
  return (Number(fields[11]) + Number(fields[12])) / TICKS;
}
