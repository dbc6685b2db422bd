import { randomBytes } from "node:crypto";
import { mkdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import { ENGINE_ENV } from "@fathom/gpu-service/engine/process-env.ts";
import { type Child, startChild, waitUntilReady } from "./child.ts";
import { findCheckpoint } from "./find-checkpoint.ts";
import { choosePorts } from "./port.ts";

const ROOT = fileURLToPath(new URL("../../", import.meta.url));
const SHIPPED = join(ROOT, "gpu-service/checkpoints");
const PLANS = ["free", "pro", "enterprise"] as const;

const HELP = `Starts the GPU service and the edge router on this machine, with one demo key per plan.

Usage: npm start [-- options]

Options:
  --checkpoint DIR     nested checkpoint to serve (default: the shipped one, else SmolLM2-135M, fetched once)
  --port N             port of the edge router (default: 8787, or the next free one)
  --service-port N     port of the GPU service (default: 8788, or the next free one)
  --state DIR          folder for models, keys, budgets and demo.json (default: .fathom)
  --help               this text

Example: npm start -- --port 9000`;

interface Options {
  checkpoint: string | undefined;
  port: number | undefined;
  servicePort: number | undefined;
  state: string;
}

type Keys = Record<(typeof PLANS)[number], string>;

function parseOptions(): Options {
  const { values } = parseArgs({
    options: {
      checkpoint: { type: "string" },
      port: { type: "string" },
      "service-port": { type: "string" },
      state: { type: "string", default: join(ROOT, ".fathom") },
      help: { type: "boolean", short: "h" },
    },
  });
  if (values.help) {
    console.log(HELP);
    process.exit(0);
  }
  return {
    checkpoint: values.checkpoint,
    port: parsePort("--port", values.port),
    servicePort: parsePort("--service-port", values["service-port"]),
    state: resolve(values.state),
  };
}

function parsePort(option: string, text: string | undefined): number | undefined {
  if (text === undefined) return undefined;
  const port = Number(text);
  if (!Number.isInteger(port) || port < 1 || port > 65535)
    throw new Error(`${option} takes a port number, not '${text}'`);
  return port;
}

async function createKey(edge: string, adminSecret: string, plan: string): Promise<string> {
  const answer = await fetch(`${edge}/admin/keys`, {
    method: "POST",
    headers: { authorization: `Bearer ${adminSecret}`, "content-type": "application/json" },
    body: JSON.stringify({ tenant: `demo-${plan}`, plan }),
  });
  if (!answer.ok) throw new Error(`the edge gave no key for plan '${plan}': ${answer.status} ${await answer.text()}`);
  const { key } = (await answer.json()) as { key: string };
  return key;
}

/** Readers see the whole file or none: it is renamed into place once everything answers. Returns what it holds. */
async function writeDemoFile(path: string, demo: { edge: string; service: string; keys: Keys }): Promise<string> {
  const text = `${JSON.stringify(demo, null, 2)}\n`;
  await writeFile(`${path}.tmp`, text, { mode: 0o600 });
  await rename(`${path}.tmp`, path);
  return text;
}

/** Removes the file, but not one that a second start has put in its place. */
async function removeDemoFile(path: string, own: string | undefined): Promise<void> {
  const text = await readFile(path, "utf8").catch(() => undefined);
  if (own !== undefined && text === own) await rm(path, { force: true });
}

function announce(demoFile: string, edge: string, service: string, keys: Keys): void {
  const body = `{"model": "fathom", "messages": [{"role": "user", "content": "Name three rivers."}], "max_tokens": 48}`;
  console.log(`\nEdge router   ${edge}\nGPU service   ${service}\nKeys and URLs ${demoFile}\n`);
  for (const plan of PLANS) {
    console.log(`# ${plan}\ncurl ${edge}/v1/chat/completions -H 'authorization: Bearer ${keys[plan]}' \\`);
    console.log(`  -H 'content-type: application/json' -d '${body}'\n`);
  }
  console.log("Ctrl-C stops everything.");
}

async function main(): Promise<void> {
  const options = parseOptions();
  const demoFile = join(options.state, "demo.json");
  await mkdir(options.state, { recursive: true });
  await rm(demoFile, { force: true });
  const { servicePort, edgePort } = await choosePorts({ service: options.servicePort, edge: options.port });

  const service = `http://127.0.0.1:${servicePort}`;
  const edge = `http://127.0.0.1:${edgePort}`;
  const serviceSecret = randomBytes(32).toString("base64url");
  const adminSecret = randomBytes(32).toString("base64url");
  const children: Child[] = [];

  let written: string | undefined;
  let stopping: Promise<void> | undefined;
  const stopAll = () => {
    stopping ??= (async () => {
      await removeDemoFile(demoFile, written);
      await Promise.all(children.map((child) => child.stop()));
    })();
    return stopping;
  };
  const stop = new AbortController();
  // A terminal that is closed sends SIGHUP, and takes no more output.
  for (const stream of [process.stdout, process.stderr]) stream.on("error", () => undefined);
  for (const signal of ["SIGINT", "SIGTERM", "SIGHUP"] as const) {
    process.on(signal, () => {
      if (!stopping) console.log("\nStopping …");
      // The steps below fail once it is aborted or the children have ended, and main comes to its end.
      stop.abort();
      void stopAll();
    });
  }

  try {
    const places = { given: options.checkpoint, shipped: SHIPPED, state: options.state };
    const checkpoint = await findCheckpoint(places, stop.signal);
    stop.signal.throwIfAborted();
    console.log("Starting the GPU service …");
    const serviceChild = startChild("GPU service", serviceCommand(checkpoint, servicePort), {
      env: { ...ENGINE_ENV, FATHOM_SERVICE_SECRET: serviceSecret },
    });
    children.push(serviceChild);
    await waitUntilReady(serviceChild, `${service}/readyz`, 120_000);
    stop.signal.throwIfAborted();
    console.log("Starting the edge router …");
    const edgeChild = startChild("edge router", edgeCommand(edgePort, service, options.state), {
      cwd: join(ROOT, "edge"),
      env: {
        SERVICE_SECRET: serviceSecret,
        ADMIN_SECRET: adminSecret,
        // wrangler takes the secrets that wrangler.jsonc names from the environment; it is to ask and to fetch nothing.
        CI: "true",
        WRANGLER_SEND_METRICS: "false",
        WRANGLER_HIDE_BANNER: "true",
        CLOUDFLARE_CF_FETCH_ENABLED: "false",
      },
    });
    children.push(edgeChild);
    await waitUntilReady(edgeChild, `${edge}/healthz`, 120_000);
    const keys = Object.fromEntries(
      await Promise.all(PLANS.map(async (plan) => [plan, await createKey(edge, adminSecret, plan)])),
    ) as Keys;
    written = await writeDemoFile(demoFile, { edge, service, keys });
    announce(demoFile, edge, service, keys);
    const [child, how] = await Promise.race(children.map(async (c) => [c, await c.exited] as const));
    if (!stopping) throw new Error(`the ${child.name} ended with ${how}:\n${child.tail()}`);
    await stopping;
  } catch (error) {
    if (!stopping) throw error;
  } finally {
    await stopAll();
  }
}

function serviceCommand(checkpoint: string, port: number): string[] {
  const main = join(ROOT, "gpu-service/src/cli/main.ts");
  return [process.execPath, main, "serve", checkpoint, "--host", "127.0.0.1", "--port", String(port)];
}

function edgeCommand(port: number, service: string, stateFolder: string): string[] {
  const wrangler = join(ROOT, "node_modules/wrangler/bin/wrangler.js");
  const state = join(stateFolder, "edge");
  const address = ["--ip", "127.0.0.1", "--port", String(port), "--inspector-port", "0"];
  return [process.execPath, wrangler, "dev", ...address, "--persist-to", state, "--var", `UPSTREAMS:${service}`];
}

try {
  await main();
  process.exit(0);
} catch (error) {
  console.error(`fathom: ${error instanceof Error ? error.message : String(error)}`);
  process.exit(1);
}
