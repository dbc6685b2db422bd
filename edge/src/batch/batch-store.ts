import type { BatchRecord, BatchSpec, RequestCounts } from "./batch-record.ts";
import { type BatchEvent, nextStatus } from "./batch-status.ts";

/** Where a line of the input is, and whose it is. */
export interface NewLine {
  line: number;
  customId: string;
  offset: number;
  length: number;
}

/** A line to be run. */
export interface ClaimedLine extends NewLine {
  /** Part of the name of its hold in the ledger. */
  attempt: number;
  /** Tries that a service has failed. */
  failures: number;
  /** It was begun before, and nobody has said how that ended. */
  again: boolean;
}

/** How running a line ended. */
export type LineOutcome =
  /** `result` is its line in the output file, or in the error file. */
  | { kind: "done"; ok: boolean; result: string }
  /** It is to be run again, under a new hold. */
  | { kind: "retry"; failed: boolean };

type LineRow = {
  line: number;
  custom_id: string;
  offset: number;
  length: number;
  attempt: number;
  failures: number;
  state: string;
};

/** One batch and its lines in SQLite. A line goes from `pending` to `running` to `done`, or back to `pending`. */
export class BatchStore {
  readonly #storage: DurableObjectStorage;
  readonly #sql: SqlStorage;

  constructor(storage: DurableObjectStorage) {
    this.#storage = storage;
    this.#sql = storage.sql;
    this.#sql.exec(`
      CREATE TABLE IF NOT EXISTS batch (one INTEGER PRIMARY KEY CHECK (one = 1), record TEXT NOT NULL) STRICT;
      CREATE TABLE IF NOT EXISTS lines (
        line INTEGER PRIMARY KEY,
        custom_id TEXT NOT NULL UNIQUE,
        offset INTEGER NOT NULL,
        length INTEGER NOT NULL,
        state TEXT NOT NULL DEFAULT 'pending',
        attempt INTEGER NOT NULL DEFAULT 1,
        failures INTEGER NOT NULL DEFAULT 0,
        ok INTEGER,
        result TEXT
      ) STRICT;
      CREATE INDEX IF NOT EXISTS lines_by_state ON lines (state, line);
      CREATE INDEX IF NOT EXISTS lines_by_outcome ON lines (ok, line);
    `);
  }

  /** Begins the batch; again changes nothing. */
  create(spec: BatchSpec): void {
    if (this.batch()) return;
    const { createdAt } = spec;
    this.#save({
      ...spec,
      status: "validating",
      times: { validating: createdAt },
      errors: [],
      outputFileId: null,
      errorFileId: null,
      turn: 0,
      waits: 0,
      seenAt: createdAt,
    });
  }

  /** Undefined before `create`. */
  batch(): BatchRecord | undefined {
    const [row] = this.#sql.exec<{ record: string }>("SELECT record FROM batch").toArray();
    return row && (JSON.parse(row.record) as BatchRecord);
  }

  update(changes: Partial<BatchRecord>): void {
    const batch = this.batch();
    if (batch) this.#save({ ...batch, ...changes });
  }

  /** Moves the batch on. @returns whether the event changed its status. */
  move(event: BatchEvent, now: number, changes: Partial<BatchRecord> = {}): boolean {
    const batch = this.batch();
    const status = batch && nextStatus(batch.status, event);
    if (!batch || status === undefined || status === batch.status) return false;
    this.#save({ ...batch, ...changes, status, times: { ...batch.times, [status]: now } });
    return true;
  }

  /** @returns the lines that were not added since another has their `customId`. */
  addLines(lines: readonly NewLine[]): NewLine[] {
    return this.#storage.transactionSync(() =>
      lines.filter(({ line, customId, offset, length }) => {
        const added = this.#sql.exec(
          "INSERT INTO lines (line, custom_id, offset, length) VALUES (?, ?, ?, ?) ON CONFLICT DO NOTHING",
          line,
          customId,
          offset,
          length,
        );
        return added.rowsWritten === 0;
      }),
    );
  }

  clearLines(): void {
    this.#sql.exec("DELETE FROM lines");
  }

  /**
   * Lines to run, in the order of the file: first those that were begun and left, since only one ticket is out and whoever
   * held it is gone.
   */
  claim(count: number): ClaimedLine[] {
    return this.#storage.transactionSync(() => {
      const sql = "SELECT * FROM lines WHERE state = ? ORDER BY line LIMIT ?";
      const left = this.#sql.exec<LineRow>(sql, "running", count).toArray();
      const rows = [...left, ...this.#sql.exec<LineRow>(sql, "pending", count - left.length).toArray()];
      for (const { line } of rows) this.#sql.exec("UPDATE lines SET state = 'running' WHERE line = ?", line);
      return rows.map(({ line, custom_id, offset, length, attempt, failures, state }) => ({
        line,
        customId: custom_id,
        offset,
        length,
        attempt,
        failures,
        again: state === "running",
      }));
    });
  }

  /** A new hold for a line whose old one is worth nothing any more. @returns its attempt; undefined if it is not running. */
  renew(line: number, attempt: number): number | undefined {
    const sql =
      "UPDATE lines SET attempt = attempt + 1 WHERE line = ? AND attempt = ? AND state = 'running' RETURNING attempt";
    return this.#sql.exec<{ attempt: number }>(sql, line, attempt).toArray()[0]?.attempt;
  }

  /** Takes an outcome; one that comes late, or again, changes nothing. */
  finish(line: number, attempt: number, outcome: LineOutcome): void {
    const where = "WHERE line = ? AND attempt = ? AND state = 'running'";
    switch (outcome.kind) {
      case "done": {
        const set = "UPDATE lines SET state = 'done', ok = ?, result = ?";
        this.#sql.exec(`${set} ${where}`, outcome.ok ? 1 : 0, outcome.result, line, attempt);
        return;
      }
      case "retry": {
        const set = "UPDATE lines SET state = 'pending', attempt = attempt + 1, failures = failures + ?";
        this.#sql.exec(`${set} ${where}`, outcome.failed ? 1 : 0, line, attempt);
        return;
      }
      default:
        outcome satisfies never;
    }
  }

  has(state: "pending" | "running"): boolean {
    return this.#sql.exec("SELECT 1 FROM lines WHERE state = ? LIMIT 1", state).toArray().length > 0;
  }

  counts(): RequestCounts {
    const sql = `SELECT count(*) AS total, coalesce(sum(ok = 1), 0) AS completed, coalesce(sum(ok = 0), 0) AS failed FROM lines`;
    return this.#sql.exec<RequestCounts & Record<string, number>>(sql).one();
  }

  /** Ends every line that has no outcome. @param resultOf its line in the error file */
  closeLines(resultOf: (customId: string) => string): void {
    const open = "SELECT line, custom_id FROM lines WHERE state != 'done'";
    for (const { line, custom_id } of this.#sql.exec<{ line: number; custom_id: string }>(open).toArray()) {
      this.#sql.exec("UPDATE lines SET state = 'done', ok = 0, result = ? WHERE line = ?", resultOf(custom_id), line);
    }
  }

  /** Results in the order of the input, a few at a time: they may be long. */
  *results(ok: boolean): Generator<string> {
    const sql = "SELECT line, result FROM lines WHERE ok = ? AND line > ? ORDER BY line LIMIT 16";
    for (let last = 0; ; ) {
      const rows = this.#sql.exec<{ line: number; result: string }>(sql, ok ? 1 : 0, last).toArray();
      for (const { line, result } of rows) {
        yield result;
        last = line;
      }
      if (rows.length === 0) return;
    }
  }

  /** Forgets the results once they are in files; what they came to is kept. */
  dropResults(): void {
    this.#sql.exec("UPDATE lines SET result = NULL");
  }

  #save(record: BatchRecord): void {
    this.#sql.exec("INSERT OR REPLACE INTO batch (one, record) VALUES (1, ?)", JSON.stringify(record));
  }
}
