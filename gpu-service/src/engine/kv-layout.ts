import type { Architecture } from "@fathom/shared";

/** A sequence as the K/V layout sees it: `rows` positions of room in each of its first `depth` layers. */
export interface KvNeed {
  depth: number;
  rows: number;
}

/** Layers `from` (inclusive) to `to` (exclusive) between two neighbouring exits. */
export interface LayerRange {
  from: number;
  to: number;
}

/** Room grows in steps of this many positions. */
export const ROW_STEP = 64;
/** Sequences of up to this many positions share a bank; longer ones share banks of four times the size, and so on. */
const SMALLEST_BANK = 256;
const BANK_RATIO = 4;

/**
 * The bank of a sequence: all lanes of a bank have room for equally many positions, which a batched call reads up to the end,
 * so sequences of very different lengths are kept apart.
 */
export function bankOf(rows: number): number {
  let size = SMALLEST_BANK;
  while (size < rows) size *= BANK_RATIO;
  return size;
}

/** Positions that the lanes of a bank have room for when its longest sequence needs `rows`. */
export function strideFor(rows: number): number {
  return Math.ceil(Math.max(rows, 1) / ROW_STEP) * ROW_STEP;
}

/** Lanes to allocate for `lanes`: a little ahead, so that not every newcomer moves the others. */
export function laneCapacity(lanes: number): number {
  return lanes <= 2 ? lanes : Math.ceil(lanes / 4) * 4;
}

/** Bytes of one position in one layer: K and V, float32. */
export function bytesPerRow({ kv_heads: kvHeads, head_dim: headDim }: Architecture): number {
  return 2 * kvHeads * headDim * Float32Array.BYTES_PER_ELEMENT;
}

/**
 * Positions of the longest sequence that can run: the model's context, or what the budget holds of one at `depth` if less.
 * @param budget bytes
 * @throws RangeError when it holds none.
 */
export function contextWithin(budget: number, a: Architecture, depth: number): number {
  const bytesPerStep = ROW_STEP * depth * bytesPerRow(a);
  const rows = ROW_STEP * Math.floor(budget / bytesPerStep);
  if (rows > 0) return Math.min(rows, a.context_length);
  const mib = (bytes: number) => `${(bytes / 2 ** 20).toFixed(2)} MiB`;
  throw new RangeError(
    `${mib(budget)} of K/V memory hold no request: at depth ${depth} one takes ${mib(bytesPerStep)}`,
  );
}

/** Bytes that the lanes of these sequences take, padding included. */
export function bytesFor(a: Architecture, segments: readonly LayerRange[], needs: Iterable<KvNeed>): number {
  const banks = new Map<number, KvNeed[]>();
  for (const need of needs) {
    const bank = bankOf(need.rows);
    const members = banks.get(bank);
    if (members) members.push(need);
    else banks.set(bank, [need]);
  }
  let bytes = 0;
  for (const members of banks.values()) {
    const stride = strideFor(members.reduce((most, { rows }) => Math.max(most, rows), 0));
    for (const { from, to } of segments) {
      const lanes = members.reduce((count, { depth }) => count + (depth > from ? 1 : 0), 0);
      bytes += (to - from) * laneCapacity(lanes) * stride * bytesPerRow(a);
    }
  }
  return bytes;
}
