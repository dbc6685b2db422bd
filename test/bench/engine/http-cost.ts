import { openCheckpoint } from "@fathom/gpu-service/checkpoint/open-checkpoint.ts";
import { runVisits } from "@fathom/gpu-service/engine/batch-step.ts";
import { CostModel } from "@fathom/gpu-service/engine/cost-model.ts";
import { loadExecutor } from "@fathom/gpu-service/engine/executor.ts";
import { loadEngine } from "@fathom/gpu-service/engine/load-engine.ts";
import { Sequence } from "@fathom/gpu-service/engine/sequence.ts";
import { TokenVisit } from "@fathom/gpu-service/engine/visit.ts";
import { SECRET, serviceProcess } from "../../service/helpers/service-process.ts";
import { median } from "../stats.ts";
import { decodeRate, type Trace, traceAll } from "./runs.ts";

interface HttpCostOptions {
  dir: string;
  threads: number;
  full: number;
  prompts: readonly number[][];
  rounds: number;
  tokens: number;
}

/** Decode rates of the same batches through the executor alone, the engine, and the service; a row per number of streams. */
export async function httpCost(options: HttpCostOptions): Promise<string[][]> {
  const { dir, threads, full, prompts, rounds, tokens } = options;
  const { manifest } = await openCheckpoint(dir);
  const executor = await loadExecutor({ dir, manifest, exits: manifest.exits, provider: "cpu", threads });
  const engine = await loadEngine(dir, { threads });
  const service = await serviceProcess(dir, ["--threads", String(threads)]);
  const rows: string[][] = [];
  for (const streams of [1, prompts.length]) {
    const used = prompts.slice(0, streams);
    const rates: [number, number, number][] = [];
    for (let round = -1; round < rounds; round++) {
      const bare = await executorRate(used);
      const inside = decodeRate(
        await traceAll(
          engine,
          used.map((prompt) => ({ prompt, depth: full, maxTokens: tokens })),
        ),
      );
      const outside = decodeRate(await Promise.all(used.map((prompt) => overHttp(prompt))));
      if (round >= 0) rates.push([bare, inside, outside]);
    }
    const column = (i: 0 | 1 | 2) => median(rates.map((row) => row[i])).toFixed(1);
    const ratio = (i: 0 | 1 | 2, j: 0 | 1 | 2) => median(rates.map((row) => row[i] / row[j])).toFixed(3);
    rows.push([
      `${streams} stream${streams > 1 ? "s" : ""}`,
      column(0),
      column(1),
      column(2),
      ratio(1, 0),
      ratio(2, 1),
    ]);
  }
  await service.stop();
  await engine.close();
  await executor.close();
  return rows;

  async function executorRate(batch: readonly number[][]): Promise<number> {
    const cost = new CostModel();
    const sequences = batch.map((prompt, i) => {
      const sampling = { temperature: 0, topP: 1, seed: 0 };
      const request = { id: `x${i}`, prompt, depth: full, sampling, maxTokens: tokens, stopTokenIds: [] };
      return new Sequence(request, manifest.exits.length, manifest.architecture.hidden_size);
    });
    const step = async (some: readonly Sequence[]) => {
      for (const { id, tokens: own } of some) executor.reserve(id, full, own.length);
      const visits = some.map((sequence) => new TokenVisit(sequence, sequence.tokens.length, false));
      await runVisits(executor, visits, cost);
      for (const { sequence, decisions } of visits) for (const { token } of decisions) sequence.tokens.push(token);
    };
    for (const sequence of sequences) await step([sequence]);
    const started = performance.now();
    for (let i = 1; i < tokens; i++) await step(sequences);
    const ms = performance.now() - started;
    for (const { id } of sequences) executor.release(id);
    return (1000 * (tokens - 1) * batch.length) / ms;
  }

  async function overHttp(prompt: readonly number[]): Promise<Trace> {
    const trace: Trace = { tokens: [], layers: [], times: [], started: performance.now(), account: undefined };
    const response = await fetch(`${service.url}/v1/completions`, {
      method: "POST",
      headers: { authorization: `Bearer ${SECRET}`, "content-type": "application/json" },
      body: JSON.stringify({
        model: manifest.name,
        prompt,
        max_tokens: tokens,
        temperature: 0,
        stream: true,
        fathom: { depth: full, per_token_layers: true },
      }),
    });
    if (!response.ok || !response.body)
      throw new Error(`the service answered ${response.status}: ${await response.text()}`);
    const decoder = new TextDecoder();
    for await (const bytes of response.body) {
      const now = performance.now();
      // A piece may carry several tokens; each counts when it arrives.
      for (const match of decoder.decode(bytes, { stream: true }).matchAll(/"layers_used":\[([\d,]*)\]/g)) {
        for (const layers of (match[1] ?? "").split(",").filter(Boolean)) {
          trace.tokens.push(0);
          trace.layers.push(Number(layers));
          trace.times.push(now);
        }
      }
    }
    return trace;
  }
}
