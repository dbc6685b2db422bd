import { randomUUID } from "node:crypto";
import type { Executor } from "./executor.ts";
import { argmax } from "./sampler.ts";
import type { ExitScores } from "./types.ts";

/** Positions that run, and rows that go through a head, at a time. */
const CHUNK = 64;

/** Logits of the prompt's last position at each of the given exits, float32 [vocab] each. */
export async function probeExits(
  executor: Executor,
  prompt: readonly number[],
  depths: readonly number[],
): Promise<{ depth: number; logits: Float32Array }[]> {
  const size = executor.architecture.hidden_size;
  const exits: { depth: number; logits: Float32Array }[] = [];
  await runAlone(executor, prompt, Math.max(...depths), async (depth, from, hidden) => {
    const last = from + hidden.length / size === prompt.length;
    if (!last || !depths.includes(depth)) return;
    const { logits } = await executor.head(depth, hidden.slice(hidden.length - size), true);
    if (logits) exits.push({ depth, logits });
  });
  return exits;
}

export interface ScoreOptions {
  tokens: readonly number[];
  /** First position to score. */
  from: number;
  withLoss: boolean;
}

/** What every exit predicts after each of the positions `from` to the last, all of them given. */
export async function scoreExits(executor: Executor, { tokens, from, withLoss }: ScoreOptions): Promise<ExitScores[]> {
  const { hidden_size: size, vocab_size: vocab } = executor.architecture;
  const count = tokens.length - from;
  const scores = executor.segments.map(({ to }) => ({
    depth: to,
    predicted: new Int32Array(count),
    confidence: new Float32Array(count),
    ...(withLoss ? { loss: new Float32Array(count) } : {}),
  }));
  await runAlone(executor, tokens, executor.segments.at(-1)?.to ?? 0, async (depth, start, hidden) => {
    const skip = Math.max(0, from - start);
    const end = start + hidden.length / size;
    const own = scores.find((exit) => exit.depth === depth);
    if (!own || start + skip >= end) return;
    const head = await executor.head(depth, hidden.slice(skip * size), withLoss);
    const at = start + skip - from;
    own.predicted.set(Int32Array.from(head.tokens, Number), at);
    own.confidence.set(head.confidence, at);
    if (!own.loss || !head.logits) return;
    for (let row = 0; row < head.confidence.length; row++) {
      const logits = head.logits.subarray(row * vocab, (row + 1) * vocab);
      own.loss[at + row] = crossEntropy(logits, tokens[start + skip + row + 1]);
    }
  });
  return scores;
}

/** −log softmax(logits)[token] in float64. */
function crossEntropy(logits: Float32Array, token: number | undefined): number {
  if (token === undefined) return Number.NaN;
  const max = logits[argmax(logits)] ?? 0;
  let sum = 0;
  for (const logit of logits) sum += Math.exp(logit - max);
  return Math.log(sum) + max - (logits[token] ?? 0);
}

/** Runs tokens through all segments up to `deepest`, a chunk at a time, and hands out the residual stream at every exit. */
async function runAlone(
  executor: Executor,
  tokens: readonly number[],
  deepest: number,
  visit: (depth: number, from: number, hidden: Float32Array) => Promise<void>,
): Promise<void> {
  const id = randomUUID();
  executor.reserve(id, deepest, tokens.length);
  try {
    for (let from = 0; from < tokens.length; from += CHUNK) {
      const chunk = tokens.slice(from, from + CHUNK);
      let input: BigInt64Array | Float32Array = BigInt64Array.from(chunk, BigInt);
      for (const [segment, { to }] of executor.segments.entries()) {
        if (to > deepest) break;
        const hidden = await executor.run(segment, [{ id, from, count: chunk.length }], input);
        await visit(to, from, hidden);
        input = hidden;
      }
    }
  } finally {
    executor.release(id);
  }
}
