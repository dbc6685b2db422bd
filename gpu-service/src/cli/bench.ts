import { constants } from "node:fs";
import { access, readFile, writeFile } from "node:fs/promises";
import { basename, dirname } from "node:path";
import { ExitPolicyName } from "@fathom/shared";
import { type Command, InvalidArgumentError, Option } from "commander";
import { type MixPart, parseMix } from "../load/mix.ts";
import type { OpenAiClient } from "../load/openai-client.ts";
import type { BenchPrompt } from "../load/prompts.ts";
import type { BenchSettings } from "../load/report.ts";
import type { AskedDepth } from "../load/request-record.ts";
import { parseSlo, type Slo } from "../load/slo.ts";
import { interruptible } from "./interruptible.ts";
import { CliError, collect, decimalNumber, USAGE_EXIT_CODE, wholeNumber } from "./output.ts";
import { ProgressBar } from "./progress-bar.ts";

const MAX_SECONDS = 7 * 86_400;

interface BenchOptions {
  url: string;
  endpoint: "chat" | "completions";
  model?: string;
  keyEnv?: string;
  keyFile?: string;
  data?: string;
  prompt: string[];
  concurrency?: number;
  rate?: number;
  burstiness: number;
  requests: number;
  maxSeconds?: number;
  warmup: number;
  timeout: number;
  maxTokens: number;
  temperature: number;
  seed: number;
  depthMix?: MixPart<AskedDepth>[];
  exit?: MixPart<ExitPolicyName>[];
  threshold?: number | "calibrated";
  slo?: Slo;
  json?: string;
  raw?: string;
  plot?: string;
}

/** Adds `fathom bench`. */
export function registerBenchCommand(program: Command): void {
  program
    .command("bench")
    .description("put a server that speaks OpenAI's API under load and measure it")
    .requiredOption("--url <url>", "where the server is, such as http://127.0.0.1:8080", httpUrl)
    .addOption(new Option("--endpoint <name>", "what to ask").choices(["chat", "completions"]).default("chat"))
    .option("--model <name>", "model to ask for (default: the first that the server lists)")
    .option("--key-env <name>", "environment variable that holds the key")
    .option("--key-file <file>", "file that holds the key")
    .option("--data <file>", "prompts: JSON lines or a JSON array, such as Alpaca's, ShareGPT's or Vicuna's")
    .option("--prompt <text>", "a prompt, instead of --data; may be given several times", collect, [])
    .option(
      "--concurrency <n>",
      "requests in flight; without --rate a closed loop (default: 1)",
      wholeNumber(1, 65_536),
    )
    .option("--rate <r>", "open loop: requests per second, whether or not answers come", decimalNumber(0.0001, 1e6))
    .option(
      "--burstiness <b>",
      "with --rate: 1 is Poisson, less comes in bursts, more evenly",
      decimalNumber(0.01, 1e4),
      1,
    )
    .option("--requests <n>", "requests to send", wholeNumber(1, 1_000_000), 100)
    .option("--max-seconds <s>", "send none after this time", decimalNumber(0.001, MAX_SECONDS))
    .option(
      "--warmup <n>",
      "requests before the run, not measured; if one fails there is no run",
      wholeNumber(0, 10_000),
      1,
    )
    .option("--timeout <s>", "longest that one request may take", decimalNumber(0.001, MAX_SECONDS), 600)
    .option("--max-tokens <n>", "longest answer", wholeNumber(1, 1_000_000), 128)
    .option("--temperature <t>", "0 always takes the likeliest token", decimalNumber(0, 2), 0)
    .option("--seed <n>", "decides arrivals, mixes and the order of prompts", wholeNumber(0, 2 ** 32 - 1), 42)
    .option("--depth-mix <mix>", "depths to ask Fathom for and their weights, such as 12:0.5,30:0.5", depthMix)
    .option("--exit <mix>", "exit policies and their weights, such as confidence or fixed:1,speculative:1", exitMix)
    .option("--threshold <t>", "threshold of the confidence exit: a number or calibrated", threshold)
    .option("--slo <bounds>", "what a good answer keeps, in ms, such as ttft:500,tpot:50,e2e:4000", slo)
    .option("--json <file>", "write the report as JSON")
    .option("--raw <file>", "write one line of JSON per request")
    .option("--plot <file>", "draw the latencies as SVG")
    .addHelpText(
      "after",
      "\nTTFT and E2E count from the intended send. TPOT is (E2E - TTFT) / (output tokens - 1), ITL the gaps between chunks;" +
        "\npercentiles are interpolated linearly: all as in vllm bench serve. 429 and 503 are refusals, not failures.\n" +
        "\nExample:\n  $ fathom bench --url http://127.0.0.1:8080 --data vicuna-80.jsonl --rate 2 --depth-mix 12:1,30:1 --slo ttft:500,tpot:50\n",
    )
    .action(bench);
}

async function bench(options: BenchOptions): Promise<void> {
  if (options.threshold !== undefined && !options.exit?.some(({ value }) => value === "confidence")) {
    throw usage("--threshold is for --exit confidence");
  }
  const { OpenAiClient } = await import("../load/openai-client.ts");
  await checkOutputs(options);
  const [prompts, key] = [await readPrompts(options), await readKey(options)];
  const client = new OpenAiClient({ url: options.url, key, timeoutMs: options.timeout * 1000 });
  try {
    await interruptible("the figures are of what had ended until then", async (signal) => {
      const model = options.model ?? (await client.firstModel(signal));
      const answered = await measure(options, client, prompts, model, signal);
      signal.throwIfAborted();
      if (answered === 0) throw new CliError("no request was answered");
    });
  } finally {
    client.close();
  }
}

/** Runs the load, prints and writes what was asked for, and returns how many requests were answered. */
async function measure(
  options: BenchOptions,
  client: OpenAiClient,
  prompts: BenchPrompt[],
  model: string,
  signal: AbortSignal,
): Promise<number> {
  const { runBench } = await import("../load/bench-run.ts");
  const { reportText } = await import("../load/report-text.ts");
  const bar = new ProgressBar();
  const onProgress = bar.update.bind(bar);
  const settings = makeSettings(options, prompts.length, model);
  const run = await runBench({ client, prompts, settings, signal, onProgress }).finally(() => bar.stop());
  process.stdout.write(`${reportText(run.report)}\n`);
  if (options.json) await writeFile(options.json, `${JSON.stringify(run.report, undefined, 2)}\n`);
  if (options.raw) await writeFile(options.raw, run.records.map((record) => `${JSON.stringify(record)}\n`).join(""));
  if (options.plot) {
    const { latencyPlot } = await import("../load/latency-plot.ts");
    await writeFile(options.plot, latencyPlot(run.records, `${model} at ${options.url}`));
  }
  return run.report.requests.ok;
}

function makeSettings(options: BenchOptions, prompts: number, model: string): BenchSettings {
  const { rate = null, requests, warmup, temperature, seed, burstiness, endpoint } = options;
  return {
    url: options.url,
    endpoint,
    model,
    prompts,
    rate,
    burstiness,
    concurrency: options.concurrency ?? (rate === null ? 1 : null),
    requests,
    warmup,
    max_seconds: options.maxSeconds ?? null,
    timeout_seconds: options.timeout,
    max_tokens: options.maxTokens,
    temperature,
    seed,
    depth_mix: options.depthMix ?? null,
    exit_mix: options.exit ?? null,
    threshold: options.threshold ?? null,
    slo: options.slo ?? null,
  };
}

async function readPrompts({ data, prompt, endpoint }: BenchOptions): Promise<BenchPrompt[]> {
  if ((data === undefined) === (prompt.length === 0)) throw usage("give either --data FILE or --prompt TEXT");
  if (data === undefined) return prompt.map((text) => ({ kind: "text", text }));
  const { parsePrompts } = await import("../load/prompts.ts");
  const prompts = parsePrompts(await readText(data, "prompts"), basename(data));
  if (endpoint === "chat" && prompts.some(({ kind }) => kind === "tokens")) {
    throw usage(`${data}: token ids need --endpoint completions`);
  }
  return prompts;
}

async function readKey({ keyEnv, keyFile }: BenchOptions): Promise<string | undefined> {
  if (keyEnv !== undefined && keyFile !== undefined) throw usage("give one of --key-env and --key-file");
  if (keyFile !== undefined) return (await readText(keyFile, "key")).trim();
  if (keyEnv === undefined) return undefined;
  const key = process.env[keyEnv];
  if (!key) throw usage(`the variable ${keyEnv} is not set`);
  return key;
}

async function readText(path: string, what: string): Promise<string> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    const reason = error instanceof Error ? error.message : String(error);
    throw new CliError(`${path}: the ${what} cannot be read (${reason})`, { cause: error });
  }
}

/** Before the run: its figures should not be lost to a folder that is not there. */
async function checkOutputs({ json, raw, plot }: BenchOptions): Promise<void> {
  for (const path of [json, raw, plot]) {
    if (path === undefined) continue;
    await access(dirname(path), constants.W_OK).catch((cause: unknown) => {
      throw new CliError(`${path}: its folder cannot be written to`, { cause });
    });
  }
}

function httpUrl(text: string): string {
  const url = URL.parse(text);
  if (url && /^https?:$/.test(url.protocol) && url.search === "" && url.username === "") return text;
  throw new InvalidArgumentError("It must be a URL such as http://127.0.0.1:8080.");
}

function mix<T>(text: string, parse: (text: string) => T | undefined): MixPart<T>[] {
  return orInvalid(() => parseMix(text, parse));
}

function depthMix(text: string): MixPart<AskedDepth>[] {
  return mix(text, (depth) => {
    if (depth === "auto") return depth;
    return /^[1-9]\d{0,3}$/.test(depth) && Number(depth) <= 1024 ? Number(depth) : undefined;
  });
}

function exitMix(text: string): MixPart<ExitPolicyName>[] {
  return mix(text, (exit) => ExitPolicyName.safeParse(exit).data);
}

function slo(text: string): Slo {
  return orInvalid(() => parseSlo(text));
}

function threshold(text: string): number | "calibrated" {
  return text === "calibrated" ? text : decimalNumber(0, 1)(text);
}

function orInvalid<T>(parse: () => T): T {
  try {
    return parse();
  } catch (error) {
    throw new InvalidArgumentError(error instanceof Error ? `${error.message}.` : String(error));
  }
}

function usage(message: string): CliError {
  return new CliError(message, { exitCode: USAGE_EXIT_CODE });
}
