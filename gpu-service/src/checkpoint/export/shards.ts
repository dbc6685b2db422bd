import type { HuggingFaceTensor } from "../huggingface/tensor-names.ts";
import { dtypeFacts, type ExportDtype } from "./dtype.ts";

/** One safetensors file of an export. */
export interface Shard {
  file: string;
  /** The tensors in the order of their bytes. */
  tensors: HuggingFaceTensor[];
}

/**
 * Deals tensors out to files of at most `limit` bytes of values, in order. Tensors that we keep packed stay together, and a
 * group that is larger than the limit gets a file of its own.
 */
export function planShards(tensors: readonly HuggingFaceTensor[], dtype: ExportDtype, limit: number): Shard[] {
  const groups: HuggingFaceTensor[][] = [];
  for (const tensor of tensors) {
    const last = groups.at(-1);
    if (last?.[0]?.source === tensor.source) last.push(tensor);
    else groups.push([tensor]);
  }
  const shards: HuggingFaceTensor[][] = [];
  let size = Number.POSITIVE_INFINITY;
  for (const group of groups) {
    const bytes = valueBytes(group, dtype);
    if (size + bytes > limit) {
      shards.push([]);
      size = 0;
    }
    shards.at(-1)?.push(...group);
    size += bytes;
  }
  return shards.map((members, i) => ({ file: shardName(i, shards.length), tensors: members }));
}

/** Bytes that the values of `tensors` take. */
export function valueBytes(tensors: readonly HuggingFaceTensor[], dtype: ExportDtype): number {
  return tensors.reduce((sum, { length }) => sum + length, 0) * dtypeFacts(dtype).bytes;
}

/** `model.safetensors.index.json`: which file holds which tensor. */
export function shardIndex(shards: readonly Shard[], dtype: ExportDtype): string {
  const all = shards.flatMap(({ tensors }) => tensors);
  const metadata = {
    total_parameters: all.reduce((sum, { length }) => sum + length, 0),
    total_size: valueBytes(all, dtype),
  };
  const map = shards.flatMap(({ file, tensors }) => tensors.map(({ name }) => [name, file] as const));
  return `${JSON.stringify({ metadata, weight_map: Object.fromEntries(map) }, null, 2)}\n`;
}

/**
 * The length prefix and header of a safetensors file with these tensors, padded so that the values start at a multiple of 8.
 * Format: https://github.com/huggingface/safetensors#format
 */
export function safetensorsHeader(tensors: readonly HuggingFaceTensor[], dtype: ExportDtype): Uint8Array {
  const { safetensors, bytes } = dtypeFacts(dtype);
  // transformers refuses a file that does not say which framework's layout it has.
  const entries: Record<string, unknown> = { __metadata__: { format: "pt" } };
  let offset = 0;
  for (const { name, shape, length } of tensors) {
    entries[name] = { dtype: safetensors, shape, data_offsets: [offset, offset + length * bytes] };
    offset += length * bytes;
  }
  const json = Buffer.from(JSON.stringify(entries));
  const padded = Math.ceil(json.length / 8) * 8;
  const header = Buffer.alloc(8 + padded, " ");
  header.writeBigUInt64LE(BigInt(padded));
  json.copy(header, 8);
  return header;
}

function shardName(index: number, count: number): string {
  if (count === 1) return "model.safetensors";
  const digits = (n: number) => String(n).padStart(5, "0");
  return `model-${digits(index + 1)}-of-${digits(count)}.safetensors`;
}
