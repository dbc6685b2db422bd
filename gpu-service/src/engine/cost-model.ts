/** Weight of a new reading: slow drifts are followed, single hiccups are not. */
const SMOOTHING = 0.1;

/** What steps take on this machine, learnt from the steps themselves, by the number of rows (in powers of two). Pure. */
export class CostModel {
  readonly #layer = new Map<number, number>();
  readonly #head = new Map<number, number>();

  /** Takes a reading: `rows` rows went through `layers` layers in `ms`. */
  observeLayers(rows: number, layers: number, ms: number): void {
    observe(this.#layer, rows, ms / layers);
  }

  /** Takes a reading: `rows` rows went through a head in `ms`. */
  observeHead(rows: number, ms: number): void {
    observe(this.#head, rows, ms);
  }

  /** Milliseconds per layer for `rows` rows; a guess as long as nothing similar was seen. */
  perLayer(rows: number): number {
    return estimate(this.#layer, rows);
  }

  /** Milliseconds of a head over `rows` rows. */
  head(rows: number): number {
    return estimate(this.#head, rows);
  }
}

const bucketOf = (rows: number): number => Math.ceil(Math.log2(Math.max(1, rows)));
/** Rows share the reading of the weights: the first costs as much as this many more. */
const FIXED_ROWS = 2;

function observe(readings: Map<number, number>, rows: number, ms: number): void {
  const bucket = bucketOf(rows);
  const known = readings.get(bucket);
  readings.set(bucket, known === undefined ? ms : known + SMOOTHING * (ms - known));
}

function estimate(readings: ReadonlyMap<number, number>, rows: number): number {
  const bucket = bucketOf(rows);
  const exact = readings.get(bucket);
  if (exact !== undefined) return exact;
  let nearest: number | undefined;
  for (const known of readings.keys()) {
    if (nearest === undefined || Math.abs(known - bucket) < Math.abs(nearest - bucket)) nearest = known;
  }
  if (nearest === undefined) return FIXED_ROWS + rows;
  return ((readings.get(nearest) ?? 0) * (FIXED_ROWS + 2 ** bucket)) / (FIXED_ROWS + 2 ** nearest);
}
