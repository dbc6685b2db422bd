import type { Architecture } from "@fathom/shared";
import ort from "onnxruntime-node";
import { MASKED } from "../graph/causal-mask.ts";
import { SEGMENT } from "../graph/llama-segment.ts";
import type { ExecutorRow } from "./executor.ts";
import type { KvBank } from "./kv-bank.ts";

/** Up to this many new positions, sequences share a call although attention pads all of them to the longest. */
const PADDED_TOGETHER = 4;

/** Rows that run in one call: of one bank, with similar numbers of new positions. */
export interface RowGroup {
  bank: KvBank;
  rows: {
    row: ExecutorRow;
    lane: number;
    /** Index of the sequence's first row in the input of the whole run. */
    offset: number;
  }[];
  /** R: new positions in all. */
  rowCount: number;
  /** The neighbouring lanes that the call sees; those of other sequences among them are computed for nothing. */
  firstLane: number;
  laneCount: number;
  /** S: new positions of the row that has most. */
  positions: number;
  /** The group's rows are those of the whole run, so its input need not be gathered. */
  inOrder: boolean;
}

/** Splits a run into calls: attention pads, so rows that differ much in length or in new positions go apart. */
export function groupRows(rows: readonly ExecutorRow[], bankOf: (id: string) => KvBank): RowGroup[] {
  const groups = new Map<KvBank, Map<number, RowGroup["rows"]>>();
  let offset = 0;
  for (const row of rows) {
    const bank = bankOf(row.id);
    const size = row.count <= PADDED_TOGETHER ? PADDED_TOGETHER : 2 ** Math.ceil(Math.log2(row.count));
    const bySize = groups.get(bank) ?? new Map<number, RowGroup["rows"]>();
    groups.set(bank, bySize);
    const members = bySize.get(size) ?? [];
    bySize.set(size, members);
    members.push({ row, lane: bank.order.lane(row.id), offset });
    offset += row.count;
  }
  const result: RowGroup[] = [];
  for (const [bank, bySize] of groups) {
    for (const members of bySize.values()) {
      const lanes = members.map(({ lane }) => lane);
      const firstLane = Math.min(...lanes);
      result.push({
        bank,
        rows: members,
        rowCount: members.reduce((sum, { row }) => sum + row.count, 0),
        firstLane,
        laneCount: Math.max(...lanes) - firstLane + 1,
        positions: Math.max(...members.map(({ row }) => row.count)),
        inOrder: members.length === rows.length,
      });
    }
  }
  return result;
}

/** The inputs that say which row belongs to which lane and what it may look at. */
export function batchFeeds(a: Architecture, group: RowGroup): Record<string, ort.Tensor> {
  const { rows, rowCount, firstLane, laneCount, positions: most, bank } = group;
  const laneRows = new BigInt64Array(laneCount * most);
  const rowSlots = new BigInt64Array(rowCount);
  const positions = new BigInt64Array(laneCount * most);
  let index = 0;
  for (const { row, lane } of rows) {
    for (let i = 0; i < row.count; i++, index++) {
      const slot = (lane - firstLane) * most + i;
      laneRows[slot] = BigInt(index);
      rowSlots[index] = BigInt(slot);
      positions[slot] = BigInt(row.from + i);
    }
  }
  const slots = [laneCount, most];
  return {
    [SEGMENT.laneRows]: new ort.Tensor("int64", laneRows, slots),
    [SEGMENT.rowSlots]: new ort.Tensor("int64", rowSlots, [rowCount]),
    [SEGMENT.positions]: new ort.Tensor("int64", positions, slots),
    [SEGMENT.mask]: mask(a, group),
    [SEGMENT.split]: new ort.Tensor("int64", BigInt64Array.of(BigInt(bank.stride), BigInt(most)), [2]),
  };
}

/**
 * float32 [L, 1, 1 or G·S, T + S]: a new position sees its own lane's past and the new positions up to itself. Slots without
 * a row see something, whatever it is: a softmax over nothing would be no number.
 */
function mask({ heads, kv_heads: kvHeads }: Architecture, group: RowGroup): ort.Tensor {
  const { rows, firstLane, laneCount, positions: most, bank } = group;
  const repeats = most === 1 ? 1 : heads / kvHeads;
  const columns = bank.stride + most;
  const values = new Float32Array(laneCount * repeats * most * columns);
  for (const { row, lane } of rows) {
    for (let r = 0; r < repeats * most; r++) {
      const start = ((lane - firstLane) * repeats * most + r) * columns;
      values.fill(MASKED, start + row.from, start + bank.stride);
      values.fill(MASKED, start + bank.stride + (r % most) + 1, start + columns);
    }
  }
  return new ort.Tensor("float32", values, [laneCount, 1, repeats * most, columns]);
}
