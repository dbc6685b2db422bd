import { type DepthProfile, fullDepth } from "@fathom/shared";
import { openCheckpoint } from "../checkpoint/open-checkpoint.ts";
import { updateManifest } from "../checkpoint/update-manifest.ts";
import type { Engine } from "../engine/types.ts";
import { loadModel } from "../text/served-model.ts";
import { loadDataset } from "../train/data/dataset.ts";
import type { Example, PromptTemplate } from "../train/data/encode-record.ts";
import { describeEnvironment } from "../train/environment.ts";

/** Tokens that are timed at every exit in every round, and rounds. */
const TIMED_TOKENS = 48;
const ROUNDS = 5;
/** Longest example, tokens, as in training. */
const MAX_LENGTH = 512;

export interface ProfileOptions {
  /** Records; those that `fathom train` holds out are measured. */
  data: string;
  template: PromptTemplate;
  /** Held-out records at most. */
  records: number;
  threads?: number;
  signal?: AbortSignal;
  onProgress?: (done: number, total: number) => void;
}

/**
 * Measures every exit of a checkpoint as it is served: cross-entropy and agreement with full depth over the response tokens of
 * held-out records (teacher forcing), and decode time at batch 1; and writes the result into the manifest.
 * @throws CheckpointError, TrainError that name the file; the abort signal's reason.
 */
export async function measureProfile(dir: string, options: ProfileOptions): Promise<DepthProfile> {
  const checkpoint = await openCheckpoint(dir);
  const { manifest } = checkpoint;
  const { engine, text } = await loadModel(dir, {
    verify: false,
    maxConcurrent: 1,
    ...(options.threads === undefined ? {} : { threads: options.threads }),
  });
  try {
    const { heldOut } = await loadDataset(options.data, {
      text,
      endToken: manifest.tokenizer.eos_token_ids[0],
      template: options.template,
      maxLength: Math.min(MAX_LENGTH, engine.info.contextLength - 1),
      vocabulary: manifest.architecture.vocab_size,
      skipEmpty: true,
    });
    const examples = heldOut.slice(0, options.records);
    const sums = new Map(manifest.exits.map((depth) => [depth, { loss: 0, agreed: 0, targets: 0 }]));
    for (const [done, example] of examples.entries()) {
      options.signal?.throwIfAborted();
      options.onProgress?.(done, examples.length);
      await addScores(engine, example, sums);
    }
    const times = await decodeTimes(engine, examples, options.signal);
    const profile: DepthProfile = {
      version: (manifest.profile?.version ?? 0) + 1,
      measured_on: await machine(engine),
      exits: manifest.exits.map((depth) => {
        const { loss, agreed, targets } = sums.get(depth) ?? { loss: 0, agreed: 0, targets: 1 };
        return { depth, ms_per_token: times.get(depth) ?? 0, agreement: agreed / targets, loss: loss / targets };
      }),
    };
    await updateManifest(checkpoint, { profile });
    return profile;
  } finally {
    await engine.close();
  }
}

async function addScores(
  engine: Engine,
  { tokens, labels }: Example,
  sums: Map<number, { loss: number; agreed: number; targets: number }>,
): Promise<void> {
  const first = labels.findIndex((label, i) => i > 0 && label === tokens[i]);
  if (first < 1) return;
  const exits = await engine.score([...tokens], first - 1, true);
  const reference = exits.find(({ depth }) => depth === fullDepth(engine.info.exits));
  for (const { depth, predicted, loss } of exits) {
    const sum = sums.get(depth);
    if (!sum) continue;
    for (let at = first; at < tokens.length; at++) {
      if (labels[at] !== tokens[at]) continue;
      sum.targets++;
      sum.loss += loss?.[at - first] ?? 0;
      sum.agreed += predicted[at - first] === reference?.predicted[at - first] ? 1 : 0;
    }
  }
}

/** Median decode milliseconds per token by exit; exits take turns, so that a drift of the machine's speed meets all. */
async function decodeTimes(engine: Engine, examples: readonly Example[], signal: AbortSignal | undefined) {
  const samples = new Map<number, number[]>(engine.info.exits.map((depth) => [depth, []]));
  for (let round = -1; round < ROUNDS; round++) {
    const prompt = [...(examples[(round + examples.length) % examples.length]?.tokens.slice(0, 40) ?? [0])];
    for (const depth of engine.info.exits) {
      signal?.throwIfAborted();
      const sampling = { temperature: 0, topP: 1, seed: 0 };
      const request = { id: `profile-${depth}`, prompt, depth, sampling, maxTokens: TIMED_TOKENS, stopTokenIds: [] };
      for await (const event of engine.generate(request)) {
        if (event.type === "finished" && round >= 0) {
          samples.get(depth)?.push(event.timing.decodeMs / (TIMED_TOKENS - 1));
        }
      }
    }
  }
  return new Map([...samples].map(([depth, ms]) => [depth, ms.sort((x, y) => x - y)[ms.length >> 1] ?? 0]));
}

async function machine(engine: Engine): Promise<string> {
  const { cpu } = await describeEnvironment();
  return `${cpu}, ${engine.info.threads} threads, ${engine.info.provider}`;
}
