import { openCheckpoint } from "@fathom/gpu-service/checkpoint/open-checkpoint.ts";
import { adamWStep, clipScale, newAdamWState } from "@fathom/gpu-service/train/adamw.ts";
import { Backprop } from "@fathom/gpu-service/train/backprop.ts";
import { type Batch, IGNORED, targetsOf } from "@fathom/gpu-service/train/batch.ts";
import { soft } from "@fathom/gpu-service/train/objectives/soft.ts";
import { type Gradients, gradientNorm, loadParameters } from "@fathom/gpu-service/train/parameters.ts";
import type { Architecture } from "@fathom/shared";
import { LAYER_MATRICES, layerMatrixShape } from "@fathom/shared";
import { benchModel } from "./model.ts";
import { median, table } from "./stats.ts";

const ROWS = 8;
const LENGTH = 90;
/** Alpaca in a chat template: about this many tokens of a record are the prompt's. */
const PROMPT = 40;
const EXITS = 8;
/** What two cores reach in fp32 matrix products of this size, in FLOP/s. */
const GEMM_LIMIT = 110e9;
const ADAMW = { beta1: 0.9, beta2: 0.999, epsilon: 1e-8, weightDecay: 0 };

/** Times SoFT steps, nothing frozen: forward and backward, then clipping and AdamW. */
export async function benchTraining(options: { model?: string; threads: number; steps: number }): Promise<void> {
  const checkpoint = await openCheckpoint(await benchModel(options.model));
  const a = checkpoint.manifest.architecture;
  const parameters = await loadParameters(checkpoint);
  const spacing = Math.max(1, Math.floor(a.layers / (EXITS + 2)));
  const exits = Array.from({ length: EXITS }, (_, i) => a.layers - (EXITS - 1 - i) * spacing);
  const batch = syntheticBatch(a.vocab_size);
  const optimizer = newAdamWState();
  const backprop = new Backprop(a, { threads: options.threads });
  const passes: number[] = [];
  const updates: number[] = [];
  const terms = soft(exits, { exitsPerStep: 1, alwaysFull: false }, Math.random);
  for (let step = -1; step < options.steps; step++) {
    const started = performance.now();
    const gradients: Gradients = new Map();
    await backprop.run(parameters, batch, terms, gradients);
    const passed = performance.now();
    const scale = clipScale(gradientNorm(gradients), 1);
    adamWStep(parameters, gradients, optimizer, 1e-5, scale, ADAMW);
    const ended = performance.now();
    // The first step makes the sessions.
    if (step < 0) continue;
    passes.push(passed - started);
    updates.push(ended - passed);
  }
  await backprop.close();

  const seconds = (median(passes) + median(updates)) / 1000;
  const flops = gemmFlops(a, exits, targetsOf(batch).labels.length);
  const tokens = ROWS * LENGTH;
  console.log(
    `${checkpoint.manifest.name}, SoFT, fp32, ${ROWS} × ${LENGTH} tokens (${PROMPT} of them prompt), ` +
      `exits ${exits.join(" ")}, ${options.threads} threads, median of ${options.steps} steps`,
  );
  console.log(
    table(
      ["figure", "value"],
      [
        ["tokens/s", (tokens / seconds).toFixed(1)],
        ["forward and backward, s", (median(passes) / 1000).toFixed(2)],
        ["clipping and AdamW, s", (median(updates) / 1000).toFixed(2)],
        ["GFLOP per step", (flops / 1e9).toFixed(0)],
        [`share of ${GEMM_LIMIT / 1e9} GFLOP/s`, (flops / seconds / GEMM_LIMIT).toFixed(2)],
        ["peak memory, GB", (process.resourceUsage().maxRSS / 1e6).toFixed(1)],
      ],
    ),
  );
}

/** Matrix products of a step: forward, and twice as much back; attention's own products are below 2% and left out. */
function gemmFlops(a: Architecture, exits: readonly number[], targets: number): number {
  const layer = LAYER_MATRICES.reduce((sum, matrix) => {
    const [n, k] = layerMatrixShape(a, matrix);
    return sum + n * k;
  }, 0);
  const layers = 6 * ROWS * LENGTH * a.layers * layer;
  return layers + 6 * exits.length * targets * a.vocab_size * a.hidden_size;
}

function syntheticBatch(vocabulary: number): Batch {
  const tokens = Int32Array.from({ length: ROWS * LENGTH }, (_, i) => (i * 7919) % vocabulary);
  const labels = tokens.map((token, i) => (i % LENGTH < PROMPT ? IGNORED : token));
  return { rows: ROWS, length: LENGTH, tokens, labels };
}
