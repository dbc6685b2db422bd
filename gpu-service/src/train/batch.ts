/** Label of a position whose prediction is not trained. */
export const IGNORED = -100;

/** Token sequences padded on the right to one length. Labels are not shifted: position t predicts label t + 1. */
export interface Batch {
  rows: number;
  length: number;
  /** int32 [rows, length]. */
  tokens: Int32Array;
  /** int32 [rows, length], `IGNORED` where there is nothing to predict. */
  labels: Int32Array;
}

/** The positions that predict something, as flat indices into [rows · length], with the token each should predict. */
export interface Targets {
  positions: Int32Array;
  labels: Int32Array;
}

/** Shifts the labels onto the positions that predict them. */
export function targetsOf({ rows, length, labels }: Batch): Targets {
  const positions: number[] = [];
  const wanted: number[] = [];
  for (let row = 0; row < rows; row++) {
    for (let t = 0; t + 1 < length; t++) {
      const label = labels[row * length + t + 1] ?? IGNORED;
      if (label === IGNORED) continue;
      positions.push(row * length + t);
      wanted.push(label);
    }
  }
  return { positions: Int32Array.from(positions), labels: Int32Array.from(wanted) };
}
