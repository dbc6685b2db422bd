import { randomStream, shuffled } from "../../random/random-stream.ts";
import { type Batch, IGNORED } from "../batch.ts";
import { TrainError } from "../train-error.ts";
import { type EncodeOptions, type Example, encodeRecord } from "./encode-record.ts";
import { readRecords } from "./records.ts";

/** Every record whose index is a multiple of this is held out and never trains. */
export const HELD_OUT_EVERY = 50;

/** Batches whose lengths are sorted together: enough to pad little, few enough to stay random. */
const BUCKET = 32;
const PADDING = 0;

export interface Dataset {
  train: Example[];
  heldOut: Example[];
  /** Records cut at the maximum length. */
  truncated: number;
  /** Records left out: empty ones, those without any response token below the maximum length, those too short to train. */
  dropped: number;
  sha256: string;
}

export interface DatasetOptions extends EncodeOptions {
  /** Longest example, tokens. */
  maxLength: number;
  /** Fewest response tokens of a record that trains; held-out records may have fewer. Default 1. */
  minResponse?: number;
  /** Token ids must lie below. */
  vocabulary: number;
  /** Leave empty records out rather than refuse the file. */
  skipEmpty: boolean;
}

/**
 * Reads and encodes a file of records.
 * @throws TrainError that names the file and the record that cannot be used.
 */
export async function loadDataset(path: string, options: DatasetOptions): Promise<Dataset> {
  const { records, sha256, where } = await readRecords(path, options.skipEmpty);
  const dataset: Dataset = { train: [], heldOut: [], truncated: 0, dropped: 0, sha256 };
  for (const [index, record] of records.entries()) {
    if (!record) {
      dataset.dropped++;
      continue;
    }
    const { tokens, labels } = encodeRecord(record, where(index), options);
    if (tokens.some((token) => token >= options.vocabulary)) {
      throw new TrainError(`${where(index)}: a token id lies outside the vocabulary of ${options.vocabulary}`);
    }
    const example = { tokens: tokens.slice(0, options.maxLength), labels: labels.slice(0, options.maxLength) };
    const heldOut = index % HELD_OUT_EVERY === 0;
    // A label on the first token has nothing before it to predict it.
    const targets = example.labels.subarray(1).filter((label) => label !== IGNORED).length;
    if (targets < (heldOut ? 1 : (options.minResponse ?? 1))) {
      dataset.dropped++;
      continue;
    }
    if (tokens.length > options.maxLength) dataset.truncated++;
    (heldOut ? dataset.heldOut : dataset.train).push(example);
  }
  if (dataset.train.length === 0) throw new TrainError(`${path}: nothing is left to train on`);
  return dataset;
}

/**
 * The batches of an epoch: examples of like length together, in an order that seed and epoch decide.
 * @returns indices into `examples`
 */
export function epochBatches(examples: readonly Example[], size: number, seed: number, epoch: number): number[][] {
  const random = randomStream(seed, 1, epoch);
  const order = shuffled([...examples.keys()], random);
  const batches: number[][] = [];
  for (let from = 0; from < order.length; from += size * BUCKET) {
    const length = (index: number) => examples[index]?.tokens.length ?? 0;
    const bucket = order.slice(from, from + size * BUCKET).sort((x, y) => length(x) - length(y));
    for (let i = 0; i < bucket.length; i += size) batches.push(bucket.slice(i, i + size));
  }
  return shuffled(batches, random);
}

/** Pads examples on the right to the longest of them. */
export function padded(examples: readonly Example[]): Batch {
  const length = Math.max(...examples.map(({ tokens }) => tokens.length));
  const tokens = new Int32Array(examples.length * length).fill(PADDING);
  const labels = new Int32Array(examples.length * length).fill(IGNORED);
  for (const [row, example] of examples.entries()) {
    tokens.set(example.tokens, row * length);
    labels.set(example.labels, row * length);
  }
  return { rows: examples.length, length, tokens, labels };
}
