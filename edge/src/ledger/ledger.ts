import { acceptOffer, type Offer } from "./offer.ts";

/** What a plan allows a tenant. */
export interface Limits {
  /** Requests admitted in any 60 seconds. */
  requestsPerMinute: number;
  /** Requests in flight at once. */
  concurrency: number;
  /** Micro-USD per calendar month (UTC). */
  monthlyBudget: number;
}

export interface ReserveRequest {
  /** Unique per request: reserving an id again answers as the first time and takes nothing more. */
  id: string;
  /** Deepest first. */
  offers: readonly Offer[];
  limits: Limits;
  /** Milliseconds after which the hold ends by itself, whatever became of the request. */
  leaseMs: number;
}

/** The request rate after a decision. */
export interface RateState {
  limit: number;
  remaining: number;
  /** Milliseconds until the whole limit is free again. */
  resetMs: number;
}

export type Refusal =
  | { refused: "rate" | "concurrency"; retryAfterMs: number }
  /** `remaining` micro-USD do not cover the cheapest offer. */
  | { refused: "budget"; remaining: number };

export type ReserveResult = ({ granted: Offer } | Refusal) & { rate: RateState };

/** How a hold ended, or that it has not. */
export type LeaseState = "reserved" | "settled" | "released" | "expired";

export interface LeaseOutcome {
  /** `unknown`: there is no such hold, or it ended long ago. */
  state: LeaseState | "unknown";
  /** Micro-USD charged. */
  charged: number;
}

export interface Usage {
  /** `2026-11` */
  month: string;
  /** Micro-USD charged this month. */
  settled: number;
  /** Micro-USD held by requests in flight. */
  reserved: number;
  inFlight: number;
}

const RATE_WINDOW_MS = 60_000;

/** How long ended holds are remembered, so that a repeated settle or release finds them. */
export const RETENTION_MS = 3_600_000;

/** When a slot is likely to be free again: nobody knows how long the running answers are. */
const CONCURRENCY_RETRY_MS = 1000;

type LeaseRow = {
  id: string;
  state: LeaseState;
  offer: string;
  charged: number;
  month: string;
};

/**
 * The account of one tenant in SQLite: who is in flight, what was spent. A hold goes from `reserved` to exactly one of
 * `settled`, `released` and `expired`, so repeating a call changes nothing. Whole micro-USD only. Every method is one
 * transaction; `now` is milliseconds since the epoch.
 */
export class Ledger {
  readonly #storage: DurableObjectStorage;

  constructor(storage: DurableObjectStorage) {
    this.#storage = storage;
    storage.sql.exec(`
      CREATE TABLE IF NOT EXISTS leases (
        id TEXT PRIMARY KEY,
        state TEXT NOT NULL,
        offer TEXT NOT NULL,
        reserved INTEGER NOT NULL,
        charged INTEGER NOT NULL DEFAULT 0,
        month TEXT NOT NULL,
        started_at INTEGER NOT NULL,
        expires_at INTEGER NOT NULL
      ) STRICT;
      CREATE INDEX IF NOT EXISTS leases_by_start ON leases (started_at, state);
      CREATE INDEX IF NOT EXISTS leases_by_expiry ON leases (expires_at);
      CREATE INDEX IF NOT EXISTS leases_in_flight ON leases (expires_at, reserved) WHERE state = 'reserved';
      CREATE TABLE IF NOT EXISTS months (month TEXT PRIMARY KEY, settled INTEGER NOT NULL) STRICT;
    `);
  }

  /**
   * Checks rate, concurrency and budget in one step and holds the deepest offer that the budget covers. A refusal takes
   * nothing, not even a place in the rate.
   * @throws RangeError when an amount is not a whole number of micro-USD.
   */
  reserve({ id, offers, limits, leaseMs }: ReserveRequest, now: number): ReserveResult {
    for (const { cost, keep } of offers) requireAmounts(cost, keep);
    return this.#storage.transactionSync((): ReserveResult => {
      this.expire(now);
      const known = this.#lease(id);
      if (known) return { granted: JSON.parse(known.offer) as Offer, rate: this.#rate(limits, now) };

      const rate = this.#rate(limits, now);
      if (rate.remaining === 0) return { refused: "rate", retryAfterMs: this.#untilNextSlot(limits, now), rate };
      const { inFlight, settled, reserved } = this.usage(now);
      if (inFlight >= limits.concurrency) {
        return { refused: "concurrency", retryAfterMs: CONCURRENCY_RETRY_MS, rate };
      }
      const remaining = limits.monthlyBudget - settled - reserved;
      const granted = acceptOffer(offers, remaining);
      if (!granted) return { refused: "budget", remaining: Math.max(0, remaining), rate };

      this.#storage.sql.exec(
        `INSERT INTO leases (id, state, offer, reserved, month, started_at, expires_at)
         VALUES (?, 'reserved', ?, ?, ?, ?, ?)`,
        id,
        JSON.stringify(granted),
        granted.cost,
        monthOf(now),
        now,
        now + leaseMs,
      );
      const after = { limit: rate.limit, remaining: rate.remaining - 1, resetMs: RATE_WINDOW_MS };
      return { granted, rate: after };
    });
  }

  /**
   * Ends a hold with what the answer really cost, at most what was held: the budget cannot be overrun by an estimate that
   * was too low.
   * @throws RangeError when the amount is not a whole number of micro-USD.
   */
  settle(id: string, microUsd: number): LeaseOutcome {
    requireAmounts(microUsd);
    return this.#storage.transactionSync(() =>
      this.#end(id, () => {
        const { sql } = this.#storage;
        const { charged, month } = sql
          .exec<{ charged: number; month: string }>(
            "UPDATE leases SET state = 'settled', charged = min(reserved, ?) WHERE id = ? RETURNING charged, month",
            microUsd,
            id,
          )
          .one();
        sql.exec(
          `INSERT INTO months (month, settled) VALUES (?1, ?2)
           ON CONFLICT (month) DO UPDATE SET settled = settled + ?2`,
          month,
          charged,
        );
      }),
    );
  }

  /** Ends the hold of a request that was not served: it costs nothing and gives its place in the rate back. */
  release(id: string): LeaseOutcome {
    return this.#storage.transactionSync(() =>
      this.#end(id, () => {
        this.#storage.sql.exec("UPDATE leases SET state = 'released' WHERE id = ?", id);
      }),
    );
  }

  /** Ends the holds whose time is up: nobody is left to say what they cost. */
  expire(now: number): void {
    this.#storage.sql.exec("UPDATE leases SET state = 'expired' WHERE state = 'reserved' AND expires_at <= ?", now);
  }

  /** Forgets holds that ended long ago. */
  prune(now: number): void {
    this.#storage.sql.exec("DELETE FROM leases WHERE state != 'reserved' AND expires_at <= ?", now - RETENTION_MS);
  }

  /** When `expire` or `prune` will next have something to do; undefined when there is nothing to wait for. */
  nextDue(): number | undefined {
    return (
      this.#earliestExpiry("SELECT min(expires_at) AS at FROM leases WHERE state = 'reserved'") ??
      this.#earliestExpiry("SELECT min(expires_at) + ? AS at FROM leases", RETENTION_MS)
    );
  }

  usage(now: number): Usage {
    const month = monthOf(now);
    const { sql } = this.#storage;
    const [row] = sql.exec<{ settled: number }>("SELECT settled FROM months WHERE month = ?", month).toArray();
    const { reserved, inFlight } = sql
      .exec<{ reserved: number; inFlight: number }>(
        `SELECT coalesce(sum(reserved), 0) AS reserved, count(*) AS inFlight FROM leases
         WHERE state = 'reserved' AND expires_at > ?`,
        now,
      )
      .one();
    return { month, settled: row?.settled ?? 0, reserved, inFlight };
  }

  #earliestExpiry(query: string, ...bindings: number[]): number | undefined {
    return this.#storage.sql.exec<{ at: number | null }>(query, ...bindings).one().at ?? undefined;
  }

  #lease(id: string): LeaseRow | undefined {
    return this.#storage.sql.exec<LeaseRow>("SELECT * FROM leases WHERE id = ?", id).toArray()[0];
  }

  #end(id: string, apply: () => void): LeaseOutcome {
    if (this.#lease(id)?.state === "reserved") apply();
    const lease = this.#lease(id);
    return lease ? { state: lease.state, charged: lease.charged } : { state: "unknown", charged: 0 };
  }

  #rate({ requestsPerMinute: limit }: Limits, now: number): RateState {
    const { used, latest } = this.#storage.sql
      .exec<{ used: number; latest: number | null }>(
        "SELECT count(*) AS used, max(started_at) AS latest FROM leases WHERE state != 'released' AND started_at > ?",
        now - RATE_WINDOW_MS,
      )
      .one();
    return {
      limit,
      remaining: Math.max(0, limit - used),
      resetMs: latest === null ? 0 : latest + RATE_WINDOW_MS - now,
    };
  }

  /** Until the request that is `limit` back from the latest leaves the window. */
  #untilNextSlot({ requestsPerMinute: limit }: Limits, now: number): number {
    const { started_at } = this.#storage.sql
      .exec<{ started_at: number }>(
        "SELECT started_at FROM leases WHERE state != 'released' ORDER BY started_at DESC LIMIT 1 OFFSET ?",
        limit - 1,
      )
      .one();
    return started_at + RATE_WINDOW_MS - now;
  }
}

function monthOf(now: number): string {
  return new Date(now).toISOString().slice(0, 7);
}

function requireAmounts(...amounts: number[]): void {
  for (const amount of amounts) {
    if (!Number.isSafeInteger(amount) || amount < 0) {
      throw new RangeError(`an amount must be a whole number of micro-USD ≥ 0, not ${amount}`);
    }
  }
}
