import { openCheckpoint } from "@fathom/gpu-service/checkpoint/open-checkpoint.ts";
import { defaultThreads } from "@fathom/gpu-service/engine/executor.ts";
import { defaultKvMemory } from "@fathom/gpu-service/engine/load-engine.ts";
import type { Engine } from "@fathom/gpu-service/engine/types.ts";
import { WorkerEngine } from "@fathom/gpu-service/engine/worker-engine.ts";
import { benchModel, referencePrompts } from "./model.ts";
import { median, table } from "./stats.ts";

const TOKENS = 64;
const ROUNDS = 7;

/** Decodes at every exit in turn, round after round, so that a drift of the machine's speed meets all of them. */
export async function benchDepth(options: { model?: string; threads?: number }): Promise<void> {
  const dir = await benchModel(options.model);
  const { manifest } = await openCheckpoint(dir);
  const layers = manifest.architecture.layers;
  const half = Math.floor(layers / 2);
  const exits = [...new Set([...manifest.exits, half])].sort((x, y) => x - y);
  const threads = options.threads ?? defaultThreads();
  const engine = await WorkerEngine.start(
    { dir, manifest, exits, provider: "cpu", threads, maxConcurrent: 1, kvBudget: defaultKvMemory() },
    { maxWaiting: 0, stallMs: 60_000 },
  );

  const samples = new Map<number, number[]>(exits.map((depth) => [depth, []]));
  for (let round = -1; round < ROUNDS; round++) {
    for (const depth of exits) {
      const ms = await decode(engine, depth, round);
      if (round >= 0) samples.get(depth)?.push(ms);
    }
  }
  await engine.close();

  const full = median(samples.get(layers) ?? []);
  const rows = exits.map((depth) => {
    const ms = median(samples.get(depth) ?? []);
    return [String(depth), ms.toFixed(2), (1000 / ms).toFixed(0), (ms / full).toFixed(3), (depth / layers).toFixed(2)];
  });
  console.log(
    `${manifest.name}, ${manifest.quantization.layers}, batch 1, ${threads} threads, ${TOKENS} tokens, ${ROUNDS} rounds`,
  );
  console.log(table(["depth", "ms/token", "tokens/s", "of full", "of layers"], rows));
  console.log(
    `half of the layers (${half}) takes ${(median(samples.get(half) ?? []) / full).toFixed(3)} of full depth's time`,
  );
}

/** Decode milliseconds per token of one answer. */
async function decode(engine: Engine, depth: number, round: number): Promise<number> {
  const prompts = referencePrompts();
  const prompt = prompts[(round + prompts.length) % prompts.length] ?? [1];
  const sampling = { temperature: 0, topP: 1, seed: 0 };
  const id = `${depth}-${round}`;
  for await (const event of engine.generate({ id, prompt, depth, sampling, maxTokens: TOKENS, stopTokenIds: [] })) {
    if (event.type === "finished") return event.timing.decodeMs / (TOKENS - 1);
  }
  throw new Error("the engine gave no terminal event");
}
