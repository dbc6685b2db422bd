/** A request that is to be answered once, however often it is sent. */
export interface IdempotentRequest {
  /** Chosen by the client, unique within the tenant. */
  key: string;
  /** SHA-256 of what was asked, hexadecimal. */
  fingerprint: string;
}

/** What is known of a key. */
export type KeyState =
  | { key: "new" }
  /** The same request is being answered. */
  | { key: "in_flight" }
  /** It was sent with another request. */
  | { key: "reused" }
  /** The request was answered and charged, but its answer was too large to keep. */
  | { key: "dropped" }
  | { key: "answered"; body: string; requestId: string; depth: number; reason: string };

/** How long answers are kept, milliseconds. */
export const ANSWER_RETENTION_MS = 24 * 3_600_000;

/** Longest answer that is kept, UTF-16 units: far below what one row may hold. */
export const MAX_KEPT_ANSWER = 256 * 1024;

/** Answers kept at once; beyond them the oldest are dropped, their keys stay known. */
const MAX_KEPT_ANSWERS = 10_000;

type AnswerRow = {
  fingerprint: string;
  request_id: string;
  body: string | null;
  stored_at: number | null;
  state: string | null;
  offer: string | null;
};

/**
 * Answers by idempotency key. A key belongs to a lease: it is taken, answered and freed in the transactions that reserve,
 * settle and release it, so there is no moment in which a charged answer could be charged again.
 */
export class KeptAnswers {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
  }

  find({ key, fingerprint }: IdempotentRequest, now: number): KeyState {
    const [row] = this.#sql
      .exec<AnswerRow>(
        `SELECT fingerprint, request_id, body, stored_at, state, coalesce(answers.offer, leases.offer) AS offer
         FROM answers LEFT JOIN leases ON leases.id = request_id WHERE key = ?`,
        key,
      )
      .toArray();
    if (!row || this.#isOver(row, now)) return { key: "new" };
    if (row.fingerprint !== fingerprint) return { key: "reused" };
    if (row.stored_at === null) return { key: "in_flight" };
    if (row.body === null || row.offer === null) return { key: "dropped" };
    const { depth, reason } = JSON.parse(row.offer) as { depth: number; reason: string };
    return { key: "answered", body: row.body, requestId: row.request_id, depth, reason };
  }

  /** Takes the key for a request that was admitted. */
  take({ key, fingerprint }: IdempotentRequest, requestId: string): void {
    this.#sql.exec(
      "INSERT OR REPLACE INTO answers (key, fingerprint, request_id) VALUES (?, ?, ?)",
      key,
      fingerprint,
      requestId,
    );
  }

  /** Keeps the answer of a request that was charged, if its key was taken. */
  keep(requestId: string, body: string, now: number): void {
    this.#sql.exec(
      `UPDATE answers SET body = ?1, stored_at = ?2, offer = (SELECT offer FROM leases WHERE id = request_id)
       WHERE request_id = ?3`,
      body.length <= MAX_KEPT_ANSWER ? body : null,
      now,
      requestId,
    );
  }

  /** Frees the key of a request that came to no answer. */
  free(requestId: string): void {
    this.#sql.exec("DELETE FROM answers WHERE request_id = ? AND stored_at IS NULL", requestId);
  }

  /** Forgets old answers, and those whose request died. */
  prune(now: number): void {
    this.#sql.exec("DELETE FROM answers WHERE stored_at <= ?", now - ANSWER_RETENTION_MS);
    this.#sql.exec(
      `DELETE FROM answers WHERE stored_at IS NULL
       AND request_id NOT IN (SELECT id FROM leases WHERE state = 'reserved' AND expires_at > ?)`,
      now,
    );
    this.#sql.exec(
      `UPDATE answers SET body = NULL WHERE stored_at <
       (SELECT stored_at FROM answers WHERE body IS NOT NULL ORDER BY stored_at DESC LIMIT 1 OFFSET ?)`,
      MAX_KEPT_ANSWERS - 1,
    );
  }

  /** When `prune` will next have something to do. */
  nextDue(): number | undefined {
    const { at } = this.#sql
      .exec<{ at: number | null }>("SELECT min(stored_at) + ? AS at FROM answers", ANSWER_RETENTION_MS)
      .one();
    return at ?? undefined;
  }

  #isOver({ stored_at, state }: AnswerRow, now: number): boolean {
    return stored_at === null ? state !== "reserved" : stored_at <= now - ANSWER_RETENTION_MS;
  }
}
