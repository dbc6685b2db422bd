import { readFile } from "node:fs/promises";
import { type Command, Option } from "commander";
import pino from "pino";
import { EXECUTION_PROVIDERS, type ExecutionProvider } from "../engine/types.ts";
import { fleetName, serviceUrl } from "./fleet-options.ts";
import { CliError, decimalNumber, depthList, USAGE_EXIT_CODE, wholeNumber } from "./output.ts";

const SECRET_VARIABLE = "FATHOM_SERVICE_SECRET";
/** Time for the last bytes to leave once everything is generated, milliseconds. */
const FLUSH_MS = 2000;
/** Log lines that may wait for a slow reader, bytes; beyond that they are dropped rather than kept. */
const MAX_LOG_BUFFER = 4 * 1024 * 1024;

interface ServeOptions {
  host: string;
  port: number;
  provider: ExecutionProvider;
  threads?: number;
  exits?: number[];
  insecure?: boolean;
  secretFile?: string;
  maxConcurrent: number;
  maxWaiting?: number;
  kvMemory?: number;
  drainTimeout: number;
  requestTimeout: number;
  register?: string;
  publicUrl?: string;
  region?: string;
  pool?: string;
}

/** Adds `fathom serve`. */
export function registerServeCommand(program: Command): void {
  program
    .command("serve")
    .description("serve a nested checkpoint over HTTP, OpenAI-compatible")
    .argument("<dir>", "checkpoint folder")
    .option("--host <host>", "address to listen on", "127.0.0.1")
    .option("--port <port>", "port to listen on; 0 takes a free one", wholeNumber(0, 65535), 8080)
    .addOption(new Option("--provider <name>", "where the model runs").choices(EXECUTION_PROVIDERS).default("cpu"))
    .option("--threads <n>", "threads of the model (default: one per core, at most 8)", wholeNumber(1, 1024))
    .option("--exits <depths>", "serve only these exits, such as 12,30", depthList)
    .option("--insecure", "ask for no key; only on a loopback host")
    .option("--secret-file <file>", `file that holds the key (default: the variable ${SECRET_VARIABLE})`)
    .option("--max-concurrent <n>", "requests that run at the same time", wholeNumber(1, 4096), 16)
    .option("--max-waiting <n>", "requests that may wait for their turn", wholeNumber(0, 100_000))
    .option(
      "--kv-memory <mib>",
      "memory for K/V, MiB (default: a quarter of the machine's, at most 2048)",
      wholeNumber(1, 1_048_576),
    )
    .option("--request-timeout <seconds>", "longest time for one answer", decimalNumber(0.001, 86_400), 600)
    .option("--drain-timeout <seconds>", "time for running answers after SIGTERM", decimalNumber(0, 86_400), 30)
    .option("--register <url>", "tell this edge that the service is there", serviceUrl)
    .option("--public-url <url>", "where the edge reaches it (with --register)", serviceUrl)
    .option("--region <name>", "region that the edge is told", fleetName)
    .option("--pool <name>", "pool to join (default: default)", fleetName)
    .addHelpText("after", "\nExample:\n  $ fathom serve models/smollm2-135m --port 8080 --insecure\n")
    .action(serve);
}

async function serve(dir: string, options: ServeOptions): Promise<void> {
  const { createApp } = await import("../http/app.ts");
  const { allowEverybody, requireSecret } = await import("../http/caller.ts");
  const { describeModel } = await import("../http/describe-model.ts");
  const { Registration } = await import("../http/registration.ts");
  const { LoadMeter } = await import("../http/load-meter.ts");
  const { listen } = await import("../http/server.ts");
  const { Service } = await import("../http/service.ts");
  const { ServiceMetrics } = await import("../metrics/service-metrics.ts");
  const { loadModel } = await import("../text/served-model.ts");

  const secret = await chooseSecret(options);
  const register = registrationOf(options, secret);
  const destination = pino.destination({ fd: 2, sync: false, maxLength: MAX_LOG_BUFFER });
  const logger = pino({ base: null, level: process.env.FATHOM_LOG_LEVEL ?? "info" }, destination);
  const service = new Service();
  const app = createApp({
    service,
    metrics: new ServiceMetrics(() => service.loaded(), { process: true }),
    logger,
    authenticate: secret === undefined ? allowEverybody : await requireSecret(secret),
    loopbackOnly: secret === undefined,
    requestTimeoutMs: Math.round(options.requestTimeout * 1000),
  });
  // Before the model is loaded: a port in use is known at once, and /readyz can say that it is loading.
  const server = await listen(app, { ...options, onError: (err) => logger.error({ err }, "connection refused") });
  // Before anything tells that the service is there: a signal may follow at once.
  const signal = nextSignal();
  logger.info({ event: "listening", url: server.url }, "listening");

  const loading = loadModel(dir, engineOptions(options));
  const model = await Promise.race([loading, signal.then(() => undefined)]).catch(async (error: unknown) => {
    await server.close(0);
    throw error;
  });
  if (model) {
    service.ready(model);
    const { architecture, ...info } = model.engine.info;
    logger.info({ event: "ready", url: server.url, model: model.manifest.name, ...info }, "ready");
    if (info.contextLength < architecture.context_length) {
      logger.warn(
        { contextLength: info.contextLength, ofModel: architecture.context_length },
        "the K/V memory holds less than the model's context; --kv-memory gives it more",
      );
    }
    process.stdout.write(`Fathom serves ${model.manifest.name} at ${server.url} (exits ${info.exits.join(", ")})\n`);
  }
  const meter = new LoadMeter();
  const registration =
    model && register
      ? new Registration({
          ...register,
          about: { ...register.about, model: describeModel(model) },
          load: () => ({
            ...service.load(),
            capacity: options.maxConcurrent,
            ...meter.read(model.engine.stats(), performance.now()),
          }),
          logger,
        })
      : undefined;
  const died = (model?.engine.died ?? new Promise<Error>(() => {})).then((err) => {
    // A service without an engine should be replaced, not drained of requests that it cannot answer.
    logger.fatal({ event: "engine died", err }, "the engine died");
    process.exitCode = 1;
    return "engine died";
  });
  logger.info({ event: "draining", signal: await Promise.race([signal, died]) }, "draining");
  // Before anything is refused: who asks another service from now on has lost nothing.
  await registration?.leave();
  // From here on a second signal ends the process at once, as without a handler.
  const cut = await service.drain(options.drainTimeout * 1000);
  await server.close(FLUSH_MS);
  // Also when it is still being loaded: ONNX Runtime aborts a process that exits under it.
  await loading.then(({ engine }) => engine.close());
  logger.info({ event: "stopped", cut }, "stopped");
  destination.flushSync();
}

function engineOptions({ provider, threads, exits, maxConcurrent, maxWaiting, kvMemory }: ServeOptions) {
  return {
    provider,
    ...(threads === undefined ? {} : { threads }),
    ...(exits === undefined ? {} : { exits }),
    maxConcurrent,
    ...(maxWaiting === undefined ? {} : { maxWaiting }),
    ...(kvMemory === undefined ? {} : { kvMemory: kvMemory * 2 ** 20 }),
  };
}

/** Where to register and as what; undefined without `--register`. */
function registrationOf({ register, publicUrl, region, pool }: ServeOptions, secret: string | undefined) {
  if (register === undefined) {
    if ((publicUrl ?? region ?? pool) === undefined) return undefined;
    throw usage("--public-url, --region and --pool are for --register");
  }
  if (publicUrl === undefined) throw usage("--register needs --public-url, where the edge reaches this service");
  if (secret === undefined) throw usage("--register needs the key that this service shares with the edge");
  const about = { url: publicUrl, pool: pool ?? "default", ...(region === undefined ? {} : { region }) };
  return { edge: register, about, secret };
}

/** The key that callers must have, undefined with `--insecure`. */
async function chooseSecret({ insecure, secretFile, host }: ServeOptions): Promise<string | undefined> {
  const { isLoopback } = await import("../http/loopback.ts");
  const { secretProblem } = await import("../http/caller.ts");
  if (insecure) {
    if (isLoopback(host)) return undefined;
    throw usage(`--insecure is allowed only on a loopback host such as 127.0.0.1, not on ${host}`);
  }
  const secret = secretFile === undefined ? process.env[SECRET_VARIABLE] : await readSecret(secretFile);
  if (!secret) throw usage(`set ${SECRET_VARIABLE}, or give --secret-file, or --insecure on a loopback host`);
  const problem = secretProblem(secret);
  if (problem) throw usage(`the key cannot be used: ${problem}`);
  return secret;
}

async function readSecret(path: string): Promise<string> {
  try {
    return (await readFile(path, "utf8")).trim();
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new CliError(`${path}: the key cannot be read (${reason})`, { cause: error });
  }
}

function usage(message: string): CliError {
  return new CliError(message, { exitCode: USAGE_EXIT_CODE });
}

/** The first SIGTERM or SIGINT; the handlers are gone after it. */
function nextSignal(): Promise<NodeJS.Signals> {
  return new Promise((resolve) => {
    const taken = (signal: NodeJS.Signals): void => {
      process.off("SIGTERM", taken);
      process.off("SIGINT", taken);
      resolve(signal);
    };
    process.on("SIGTERM", taken);
    process.on("SIGINT", taken);
  });
}
