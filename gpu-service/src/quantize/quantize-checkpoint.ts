import type { Manifest, WeightFormat } from "@fathom/shared";
import type { Checkpoint } from "../checkpoint/open-checkpoint.ts";
import { type RequantizeOptions, requantize } from "../checkpoint/requantize.ts";
import { randomStream, shuffled } from "../random/random-stream.ts";
import { TextModel } from "../text/text-model.ts";
import { loadDataset } from "../train/data/dataset.ts";
import type { PromptTemplate } from "../train/data/encode-record.ts";
import { TrainError } from "../train/train-error.ts";
import { LayerQuantizer } from "./layer-quantizer.ts";

/** Positions of a window: records one after the other, cut where a window is full. */
const WINDOW = 256;
const SEED = 42;

export interface CalibrationOptions {
  /** Records to fit the layers to; those that `fathom train` holds out are left out. */
  data: string;
  template: PromptTemplate;
  /** Tokens at least. */
  tokens: number;
  threads: number;
}

/**
 * Writes a checkpoint anew with its layers as int4, fitted to what they are multiplied with on records (GPTQ) rather than
 * rounded; see `requantize` for the rest.
 * @throws TrainError that names the records that cannot be used; what `requantize` throws.
 */
export async function quantizeCalibrated(
  checkpoint: Checkpoint,
  out: string,
  weights: WeightFormat,
  { data, template, tokens, threads }: CalibrationOptions,
  options: RequantizeOptions = {},
): Promise<Manifest> {
  if (weights !== "int4") throw new TrainError(`calibration is for int4; ${weights} needs none`);
  const windows = await calibrationWindows(checkpoint, data, template, tokens);
  const quantizer = await LayerQuantizer.create(checkpoint, windows, options.keep?.names ?? new Set(), threads);
  try {
    const note = `by GPTQ on ${windows.length * (windows[0]?.length ?? 0)} tokens`;
    return await requantize(checkpoint, out, weights, {
      ...options,
      note,
      encode: (name, quantization) => quantizer.encode(name, quantization),
    });
  } finally {
    await quantizer.close();
  }
}

async function calibrationWindows(
  { dir, manifest }: Checkpoint,
  data: string,
  template: PromptTemplate,
  tokens: number,
): Promise<Int32Array[]> {
  const { architecture, tokenizer } = manifest;
  const { train } = await loadDataset(data, {
    text: await TextModel.load(dir),
    endToken: tokenizer.eos_token_ids[0],
    template,
    maxLength: architecture.context_length,
    vocabulary: architecture.vocab_size,
    skipEmpty: true,
  });
  const length = Math.min(WINDOW, architecture.context_length);
  const windows: Int32Array[] = [];
  let window = new Int32Array(length);
  let filled = 0;
  for (const index of shuffled([...train.keys()], randomStream(SEED))) {
    for (const token of train[index]?.tokens ?? []) {
      window[filled++] = token;
      if (filled < length) continue;
      windows.push(window);
      if (windows.length * length >= tokens) return windows;
      window = new Int32Array(length);
      filled = 0;
    }
  }
  if (windows.length === 0) throw new TrainError(`${data}: has fewer than the ${length} tokens of one window`);
  return windows;
}
