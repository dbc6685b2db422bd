import { spawnSync } from "node:child_process";
import { openCheckpoint } from "@fathom/gpu-service/checkpoint/open-checkpoint.ts";
import { defaultThreads } from "@fathom/gpu-service/engine/executor.ts";
import { loadEngine } from "@fathom/gpu-service/engine/load-engine.ts";
import { ENGINE_ENV } from "@fathom/gpu-service/engine/process-env.ts";
import type { Engine, ExitPolicy } from "@fathom/gpu-service/engine/types.ts";
import { bytesAt, fullDepth, type Manifest } from "@fathom/shared";
import { benchModel, referencePrompts } from "../model.ts";
import { startLlamaBatch } from "../peers.ts";
import { median, table } from "../stats.ts";
import { memoryBandwidth } from "./bandwidth.ts";
import { httpCost } from "./http-cost.ts";
import { decodeRate, totalRate, trace, traceAll } from "./runs.ts";

const STREAMS = 8;
const TOKENS = 64;

interface Options {
  model?: string;
  threads?: number;
  rounds: number;
  only?: string;
  peers: boolean;
}

interface Bench {
  engine: Engine;
  manifest: Manifest;
  dir: string;
  threads: number;
  rounds: number;
  exits: number[];
  full: number;
  prompts: number[][];
  peers: boolean;
}

const PARTS = { a: streams, b: mixedDepths, c: http, d: interleaving, e: policies, f: bandwidth };

/** Measures the engine: batches, mixed depths, the service around it, prompts beside streams, exit policies, bandwidth. */
export async function benchEngine(options: Options): Promise<void> {
  if (process.env.GLIBC_TUNABLES === undefined) {
    // As `npm start` runs it; glibc reads its settings when a process starts.
    const again = spawnSync(process.execPath, process.argv.slice(1), {
      stdio: "inherit",
      env: { ...process.env, ...ENGINE_ENV },
    });
    process.exitCode = again.status ?? 1;
    return;
  }
  const dir = await benchModel(options.model);
  const { manifest } = await openCheckpoint(dir);
  const threads = options.threads ?? defaultThreads();
  const engine = await loadEngine(dir, { threads, maxConcurrent: 16 });
  const prompts = Array.from({ length: STREAMS }, (_, i) => referencePrompts()[i % 6] ?? []);
  const { rounds, peers } = options;
  const { exits } = manifest;
  const bench = { engine, manifest, dir, threads, rounds, exits, full: fullDepth(exits), prompts, peers };
  console.log(
    `${manifest.name}, ${manifest.quantization.layers}, exits ${exits.join(" ")}, ${threads} threads, ${rounds} rounds`,
  );
  // Kernels, caches and clocks warm up.
  await traceAll(
    engine,
    prompts.map((prompt) => ({ prompt, depth: bench.full, maxTokens: 16 })),
  );
  for (const [name, part] of Object.entries(PARTS)) {
    if (options.only === undefined || options.only.includes(name)) await part(bench);
  }
  await engine.close();
}

/** Prompts that nobody has run: a prefix at hand would flatter. */
let salt = 0;
function fresh(prompt: readonly number[]): number[] {
  return [100 + (salt++ % 40_000), ...prompt];
}

async function streams({ engine, full, prompts, rounds, threads, peers }: Bench): Promise<void> {
  const llama = peers ? await startLlamaBatch(threads, STREAMS) : undefined;
  const one: number[] = [];
  const many: number[] = [];
  const theirs: number[] = [];
  for (let round = -1; round < rounds; round++) {
    const single = totalRate([
      await trace(engine, { prompt: fresh(prompts[0] ?? []), depth: full, maxTokens: TOKENS }),
    ]);
    const batch = prompts.map((prompt) => ({ prompt: fresh(prompt), depth: full, maxTokens: TOKENS }));
    const total = totalRate(await traceAll(engine, batch));
    const other = await llama?.run({ prompts: batch.map(({ prompt }) => prompt), tokens: TOKENS });
    if (round < 0) continue;
    one.push(single);
    many.push(total);
    if (other !== undefined) theirs.push(other);
  }
  llama?.stop();
  const ratio = median(many.map((rate, i) => rate / (one[i] ?? Number.NaN)));
  console.log(`\n(a) tokens/s in all, prompts included, ${TOKENS} tokens each, full depth`);
  const rows = [
    ["1 stream", median(one).toFixed(1), ""],
    [`${STREAMS} streams`, median(many).toFixed(1), `${ratio.toFixed(2)} × one stream (asked: 1.8)`],
  ];
  if (theirs.length > 0) {
    const over = median(many.map((rate, i) => rate / (theirs[i] ?? Number.NaN)));
    rows.push([
      `node-llama-cpp, ${STREAMS} sequences`,
      median(theirs).toFixed(1),
      `ours ${over.toFixed(2)} × (asked: 3)`,
    ]);
  }
  console.log(table(["", "tokens/s", ""], rows));
}

async function mixedDepths({ engine, exits, full, prompts, rounds }: Bench): Promise<void> {
  const shallowest = exits[0] ?? full;
  const run = async (depths: (i: number) => number) =>
    decodeRate(
      await traceAll(
        engine,
        prompts.map((prompt, i) => ({ prompt, depth: depths(i), maxTokens: TOKENS })),
      ),
    );
  const ratios: number[] = [];
  const rates: number[][] = [];
  for (let round = 0; round < rounds; round++) {
    const shallow = await run(() => shallowest);
    const deep = await run(() => full);
    const mixed = await run((i) => (i % 2 === 0 ? shallowest : full));
    const predicted = STREAMS / ((STREAMS / shallow + STREAMS / deep) / 2);
    ratios.push(mixed / predicted);
    rates.push([shallow, deep, mixed, predicted]);
  }
  const column = (i: number) => median(rates.map((row) => row[i] ?? Number.NaN)).toFixed(1);
  console.log(`\n(b) decode tokens/s of ${STREAMS} streams`);
  console.log(
    table(
      ["", "tokens/s", ""],
      [
        [`all at ${shallowest}`, column(0), ""],
        [`all at ${full}`, column(1), ""],
        ["half and half", column(2), `${median(ratios).toFixed(2)} × the linear model's ${column(3)} (asked: 0.9)`],
      ],
    ),
  );
}

async function http({ dir, threads, full, prompts, rounds }: Bench): Promise<void> {
  console.log("\n(c) decode tokens/s at full depth: the layers alone, the engine, and over HTTP, streamed");
  // The client runs on the same machine: with a thread of the model on every core, it is the client that costs.
  for (const used of new Set([Math.max(1, threads - 1), threads])) {
    const rows = await httpCost({ dir, threads: used, full, prompts, rounds, tokens: TOKENS });
    const asked = used === Math.max(1, threads - 1) ? " (asked: 0.97)" : "";
    console.log(
      table([`${used} threads`, "executor", "engine", "HTTP", "engine / executor", `HTTP / engine${asked}`], rows),
    );
  }
}

async function interleaving({ engine, full, rounds }: Bench): Promise<void> {
  const long = () => Array.from({ length: 1500 }, (_, i) => 200 + ((i * 7919 + salt++) % 40_000));
  const chunks = Math.ceil(1500 / 128);
  const chunkMs: number[] = [];
  const waits: number[] = [];
  for (let round = 0; round < Math.max(rounds, 5); round++) {
    const alone = await trace(engine, { prompt: long(), depth: full, maxTokens: 1 });
    const chunk = ((alone.times[0] ?? 0) - alone.started) / chunks;
    chunkMs.push(chunk);
    const slow = trace(engine, { prompt: long(), depth: full, maxTokens: 1 });
    // Somewhere in the middle of a chunk.
    await new Promise((resolve) => setTimeout(resolve, chunk * (2 + 0.37 * round)));
    const short = await trace(engine, {
      prompt: fresh(Array.from({ length: 20 }, (_, i) => 300 + i)),
      depth: full,
      maxTokens: 1,
    });
    waits.push(((short.times[0] ?? 0) - short.started) / chunk);
    await slow;
  }
  console.log("\n(d) time to first token of 20 tokens while 1,500 are prefilled");
  const worst = Math.max(...waits).toFixed(2);
  console.log(
    `one chunk of 128: ${median(chunkMs).toFixed(0)} ms; first token after ${median(waits).toFixed(2)} chunks, at worst ${worst} (asked: 2)`,
  );
}

async function policies({ engine, manifest, exits, full, prompts, rounds }: Bench): Promise<void> {
  const shallower = exits.slice(0, -1);
  const confident = (threshold: number) => Object.fromEntries(shallower.map((depth) => [depth, threshold]));
  const kinds: [string, number, ExitPolicy][] = [
    ...exits.map((depth): [string, number, ExitPolicy] => [`fixed ${depth}`, depth, { type: "fixed" }]),
    ...shallower.map((draftDepth): [string, number, ExitPolicy] => [
      `speculative, draft ${draftDepth}`,
      full,
      { type: "speculative", draftDepth },
    ]),
    ...[0.9, 0.7].map((t): [string, number, ExitPolicy] => [
      `confidence ≥ ${t}`,
      full,
      { type: "confidence", thresholds: confident(t) },
    ]),
  ];
  if (manifest.thresholds)
    kinds.push(["confidence, calibrated", full, { type: "confidence", thresholds: manifest.thresholds }]);
  const ratios = new Map<string, number[]>();
  const notes = new Map<
    string,
    { agreed: number; tokens: number; layers: number; proposed: number; accepted: number }
  >();
  const used = prompts.slice(0, 6);
  for (let round = 0; round < rounds; round++) {
    const rates = new Map<string, number>();
    for (const [name, depth, policy] of kinds) {
      let [count, ms] = [0, 0];
      const note = notes.get(name) ?? { agreed: 0, tokens: 0, layers: 0, proposed: 0, accepted: 0 };
      notes.set(name, note);
      for (const prompt of used) {
        const { tokens, times, layers, account } = await trace(engine, { prompt, depth, policy, maxTokens: TOKENS });
        count += tokens.length - 1;
        ms += (times.at(-1) ?? 0) - (times[0] ?? 0);
        if (round > 0) continue;
        const scores = await engine.score([...prompt, ...tokens.slice(0, -1)], prompt.length - 1);
        const reference = scores.at(-1)?.predicted ?? [];
        note.agreed += tokens.filter((token, i) => token === reference[i]).length;
        note.tokens += tokens.length;
        note.layers += layers.reduce((x, y) => x + y, 0);
        note.proposed += account?.draft?.proposed ?? 0;
        note.accepted += account?.draft?.accepted ?? 0;
      }
      rates.set(name, (1000 * count) / ms);
    }
    const base = rates.get(`fixed ${full}`) ?? Number.NaN;
    for (const [name, rate] of rates) ratios.set(name, [...(ratios.get(name) ?? []), rate / base]);
  }
  console.log("\n(e) exit policies, batch 1, against full depth");
  const rows = kinds.map(([name]) => {
    const note = notes.get(name);
    if (!note) return [name];
    const drafted = note.proposed > 0 ? `${note.accepted}/${note.proposed}` : "";
    return [
      name,
      `${median(ratios.get(name) ?? []).toFixed(2)} ×`,
      (note.layers / note.tokens).toFixed(1),
      (note.agreed / note.tokens).toFixed(3),
      drafted,
    ];
  });
  console.log(table(["", "tokens/s", "layers/token", "agreement", "drafts accepted"], rows));
}

async function bandwidth({ engine, manifest, full, prompts, rounds, threads }: Bench): Promise<void> {
  const bytes = bytesAt(manifest, full);
  const rates: number[] = [];
  const limits: number[] = [];
  for (let round = 0; round < rounds; round++) {
    limits.push(await memoryBandwidth(threads));
    rates.push(
      decodeRate([await trace(engine, { prompt: prompts[round % 6] ?? [], depth: full, maxTokens: 2 * TOKENS })]),
    );
  }
  const [rate, limit] = [median(rates), median(limits)];
  console.log("\n(f) one stream at full depth");
  console.log(
    `${rate.toFixed(1)} tokens/s = ${(1000 / rate).toFixed(2)} ms/token; ${(bytes / 1e6).toFixed(1)} MB of weights per token at ${(limit / 1e9).toFixed(1)} GB/s ` +
      `take ${((1000 * bytes) / limit).toFixed(2)} ms, ${((100 * rate * bytes) / limit).toFixed(0)}% of it; the memory would allow ${(limit / bytes).toFixed(0)} tokens/s`,
  );
}
