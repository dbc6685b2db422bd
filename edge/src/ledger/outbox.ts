import type { UsageRow } from "../usage/usage-row.ts";

/** Something that the ledger has to tell others, at least once. */
export type Outgoing = { kind: "usage"; id: string; row: UsageRow } | BudgetMessage;

/** How a tenant's month goes: `percent` of its budget are spent, or a request was refused because too little remained. */
export interface BudgetMessage {
  kind: "budget";
  /** The same whoever finds it out: told once in a month. */
  id: string;
  type: "budget.threshold" | "budget.exhausted";
  tenant: string;
  month: string;
  percent: number;
  /** Micro-USD. */
  settled: number;
  budget: number;
}

/** How long copies of usage rows are kept beyond their day, so that the nightly reconciliation can send them again. */
export const COPIES_KEPT_MS = 3 * 86_400_000;

type OutboxRow = { sequence: number; kind: string; id: string; data: string };

/** Messages that are written with what they tell of, in one transaction, and deleted once they were sent. */
export class Outbox {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
  }

  /** Within the transaction that settles. */
  addUsage(row: UsageRow): void {
    this.#sql.exec(
      "INSERT INTO usage_rows (request_id, day, data) VALUES (?, ?, ?)",
      row.request_id,
      row.day,
      JSON.stringify(row),
    );
    this.#sql.exec("INSERT INTO outbox (kind, id) VALUES ('usage', ?)", row.request_id);
  }

  /** Adds the message unless it was ever added before. */
  announce(message: BudgetMessage): void {
    const isNew = this.#sql.exec("INSERT OR IGNORE INTO announced (id) VALUES (?) RETURNING id", message.id).toArray();
    if (isNew.length === 0) return;
    this.#sql.exec(
      "INSERT INTO outbox (kind, id, data) VALUES (?, ?, ?)",
      message.kind,
      message.id,
      JSON.stringify(message),
    );
  }

  get isEmpty(): boolean {
    return this.#sql.exec("SELECT 1 FROM outbox LIMIT 1").toArray().length === 0;
  }

  /** The oldest messages, with the number to acknowledge them by. */
  next(limit: number): { upTo: number; messages: Outgoing[] } {
    const rows = this.#sql
      .exec<OutboxRow>(
        `SELECT sequence, kind, id, coalesce(outbox.data, usage_rows.data) AS data
         FROM outbox LEFT JOIN usage_rows ON kind = 'usage' AND request_id = id ORDER BY sequence LIMIT ?`,
        limit,
      )
      .toArray();
    const messages = rows.map(({ kind, id, data }): Outgoing => {
      return kind === "usage" ? { kind, id, row: JSON.parse(data) as UsageRow } : (JSON.parse(data) as Outgoing);
    });
    return { upTo: rows.at(-1)?.sequence ?? 0, messages };
  }

  /** Deletes what was sent; copies of usage rows stay. */
  acknowledge(upTo: number): void {
    this.#sql.exec("DELETE FROM outbox WHERE sequence <= ?", upTo);
  }

  /** Copies of a day's rows, by request id. @param after the last id of the page before, or "" */
  copies(day: string, after: string, limit: number): UsageRow[] {
    return this.#sql
      .exec<{ data: string }>(
        "SELECT data FROM usage_rows WHERE day = ? AND request_id > ? ORDER BY request_id LIMIT ?",
        day,
        after,
        limit,
      )
      .toArray()
      .map(({ data }) => JSON.parse(data) as UsageRow);
  }

  /** Forgets copies that were sent long ago. @param before the first day to keep */
  prune(before: string): void {
    this.#sql.exec(
      "DELETE FROM usage_rows WHERE day < ? AND request_id NOT IN (SELECT id FROM outbox WHERE kind = 'usage')",
      before,
    );
  }

  /** The first day of which there are copies. */
  oldestDay(): string | undefined {
    return this.#sql.exec<{ day: string | null }>("SELECT min(day) AS day FROM usage_rows").one().day ?? undefined;
  }
}
