import type { Holder, Metered, UsageRow } from "../usage/usage-row.ts";
import { refusedWindow, remainingOf, requireAmounts, shortOf } from "./decide.ts";
import { type IdempotentRequest, KeptAnswers, type KeyState } from "./kept-answers.ts";
import { acceptOffer, type Offer } from "./offer.ts";
import { type BudgetMessage, COPIES_KEPT_MS, Outbox } from "./outbox.ts";
import { migrate } from "./schema.ts";
import { dayOf, monthOf, untilEnd } from "./windows.ts";

/** What a plan allows a tenant. */
export interface Limits {
  /** Requests admitted in any 60 seconds. */
  requestsPerMinute: number;
  /** Requests in flight at once. */
  concurrency: number;
  /** Micro-USD per calendar month (UTC). */
  monthlyBudget: number;
  /** Micro-USD per day (UTC); undefined when the month's budget alone counts. */
  dailyBudget?: number | undefined;
}

export interface ReserveRequest {
  /** Unique per request: reserving an id again answers as the first time and takes nothing more. */
  id: string;
  holder: Holder;
  /** Deepest first. */
  offers: readonly Offer[];
  limits: Limits;
  /** Milliseconds after which the hold ends by itself, whatever became of the request. */
  leaseMs: number;
  /** Set when the client named an idempotency key. */
  idempotent?: IdempotentRequest | undefined;
}

/** The part of the budgets that other ledgers of the tenant hold, micro-USD. */
export interface Sharing {
  lent: { month: number; day: number };
  /** What may be had from them in this month. Undefined: nothing any more, what fits must do. */
  elsewhere?: number | undefined;
}

const NOT_SHARED: Sharing = { lent: { month: 0, day: 0 } };

/** The request rate after a decision. */
export interface RateState {
  limit: number;
  remaining: number;
  /** Milliseconds until the whole limit is free again. */
  resetMs: number;
}

export type Refusal =
  | { refused: "rate" | "concurrency"; retryAfterMs: number }
  /** `remaining` micro-USD of the window do not cover the cheapest offer; it ends in `retryAfterMs`. */
  | { refused: "budget"; window: "month" | "day"; remaining: number; retryAfterMs: number }
  | { refused: "idempotency"; key: "in_flight" | "reused" | "dropped" };

export type ReserveResult = ({ granted: Offer } | { answered: KeyState & { key: "answered" } } | Refusal) & {
  rate: RateState;
};

/** `need` micro-USD are to be had from other ledgers before the request is decided. */
export interface Short {
  short: true;
  need: number;
}

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
  /** Micro-USD held by requests in flight that began this month. */
  reserved: number;
  inFlight: number;
  /** The same of today (UTC). */
  today: { settled: number; reserved: number };
}

/** What a ledger charged on one day. */
export interface DayAccount {
  requests: number;
  microUsd: number;
}

const RATE_WINDOW_MS = 60_000;

const DAY_MS = 86_400_000;

/** How long ended holds are remembered, so that a repeated settle or release finds them. */
export const RETENTION_MS = 3_600_000;

/** When a slot is likely to be free again: nobody knows how long the running answers are. */
const CONCURRENCY_RETRY_MS = 1000;

/** Shares of the month's budget that are told of, percent. */
const THRESHOLDS = [80, 100];

type LeaseRow = {
  id: string;
  state: LeaseState;
  offer: string;
  holder: string;
  charged: number;
  month: string;
  month_budget: number;
  day: string;
  started_at: number;
};

/**
 * The account of one tenant in SQLite: who is in flight, what was spent. A hold goes from `reserved` to exactly one of
 * `settled`, `released` and `expired`, so repeating a call changes nothing. Whole micro-USD only. Every method is one
 * transaction; `now` is milliseconds since the epoch.
 */
export class Ledger {
  readonly outbox: Outbox;
  readonly #storage: DurableObjectStorage;
  readonly #answers: KeptAnswers;

  constructor(storage: DurableObjectStorage) {
    migrate(storage);
    this.#storage = storage;
    this.#answers = new KeptAnswers(storage.sql);
    this.outbox = new Outbox(storage.sql);
  }

  /**
   * Checks rate, concurrency and budget in one step and holds the deepest offer that the budget covers. A refusal takes
   * nothing, not even a place in the rate. `Short` only if `sharing` says that there may be more elsewhere.
   * @throws RangeError when an amount is not a whole number of micro-USD.
   */
  reserve(request: ReserveRequest, now: number, sharing: Sharing & { elsewhere: number }): ReserveResult | Short;
  reserve(request: ReserveRequest, now: number, sharing?: Sharing): ReserveResult;
  reserve(request: ReserveRequest, now: number, sharing: Sharing = NOT_SHARED): ReserveResult | Short {
    const { id, offers, limits, idempotent } = request;
    for (const { cost, keep } of offers) requireAmounts(cost, keep);
    return this.#storage.transactionSync((): ReserveResult | Short => {
      this.expire(now);
      const rate = this.#rate(limits, now);
      const known = this.#lease(id);
      if (known) return { granted: JSON.parse(known.offer) as Offer, rate };

      const state = idempotent ? this.#answers.find(idempotent, now) : undefined;
      if (state?.key === "answered") return { answered: state, rate };
      if (state && state.key !== "new") return { refused: "idempotency", key: state.key, rate };

      if (rate.remaining === 0) return { refused: "rate", retryAfterMs: this.#untilNextSlot(limits, now), rate };
      const usage = this.usage(now);
      if (usage.inFlight >= limits.concurrency) {
        return { refused: "concurrency", retryAfterMs: CONCURRENCY_RETRY_MS, rate };
      }
      const remaining = remainingOf(usage, limits, sharing);
      const short = shortOf(offers, remaining, sharing.elsewhere);
      if (short) return short;
      const granted = acceptOffer(offers, remaining.month, remaining.least);
      if (!granted) {
        const exhausted = refusedWindow(offers, remaining);
        if (exhausted === "month") this.#tellExhausted(request, usage);
        const left = exhausted === "month" ? remaining.month : remaining.least;
        const retryAfterMs = untilEnd(exhausted, now);
        return { refused: "budget", window: exhausted, remaining: Math.max(0, left), retryAfterMs, rate };
      }
      this.#hold(request, granted, now);
      const after = { limit: rate.limit, remaining: rate.remaining - 1, resetMs: RATE_WINDOW_MS };
      return { granted, rate: after };
    });
  }

  /** What is known of an idempotency key. */
  findAnswer(request: IdempotentRequest, now: number): KeyState {
    return this.#answers.find(request, now);
  }

  /**
   * Ends a hold with what the answer really cost, at most what was held: the budget cannot be overrun by an estimate that
   * was too low. The usage row is written with it.
   * @param body the answer, kept under the request's idempotency key if it has one
   * @throws RangeError when the amount is not a whole number of micro-USD.
   */
  settle(id: string, microUsd: number, metered: Metered, now: number, body?: string): LeaseOutcome {
    requireAmounts(microUsd);
    return this.#storage.transactionSync(() =>
      this.#end(id, (lease) => {
        const { sql } = this.#storage;
        const { charged } = sql
          .exec<{ charged: number }>(
            "UPDATE leases SET state = 'settled', charged = min(reserved, ?) WHERE id = ? RETURNING charged",
            microUsd,
            id,
          )
          .one();
        for (const window of [lease.month, lease.day]) {
          sql.exec(
            `INSERT INTO windows (name, settled, requests) VALUES (?1, ?2, 1)
             ON CONFLICT (name) DO UPDATE SET settled = settled + ?2, requests = requests + 1`,
            window,
            charged,
          );
        }
        const row = this.#usageRow(lease, charged, metered, now);
        this.outbox.addUsage(row);
        this.tellThresholds(row.tenant, lease.month, this.settledIn(lease.month), lease.month_budget);
        if (body === undefined) this.#answers.free(id);
        else this.#answers.keep(id, body, now);
      }),
    );
  }

  /** Ends the hold of a request that was not served: it costs nothing and gives its place in the rate back. */
  release(id: string): LeaseOutcome {
    return this.#storage.transactionSync(() =>
      this.#end(id, ({ started_at }) => {
        this.#storage.sql.exec("UPDATE leases SET state = 'released' WHERE id = ?", id);
        this.#countStart(started_at, -1);
        this.#answers.free(id);
      }),
    );
  }

  /** Ends the holds whose time is up: nobody is left to say what they cost. */
  expire(now: number): void {
    this.#storage.sql.exec("UPDATE leases SET state = 'expired' WHERE state = 'reserved' AND expires_at <= ?", now);
  }

  /** Forgets holds that ended long ago, and what is kept for a time only. */
  prune(now: number): void {
    this.#storage.transactionSync(() => {
      this.#storage.sql.exec("DELETE FROM leases WHERE state != 'reserved' AND expires_at <= ?", now - RETENTION_MS);
      this.#storage.sql.exec("DELETE FROM starts WHERE second < ?", Math.floor((now - 2 * RATE_WINDOW_MS) / 1000));
      this.#answers.prune(now);
      this.outbox.prune(dayOf(now - COPIES_KEPT_MS));
    });
  }

  /** When `expire` or `prune` will next have something to do; undefined when there is nothing to wait for. */
  nextDue(): number | undefined {
    const expiry = this.#earliestExpiry("SELECT min(expires_at) AS at FROM leases WHERE state = 'reserved'");
    if (expiry !== undefined) return expiry;
    const oldest = this.outbox.oldestDay();
    const due = [
      this.#earliestExpiry("SELECT min(expires_at) + ? AS at FROM leases", RETENTION_MS),
      this.#answers.nextDue(),
      oldest === undefined ? undefined : Date.parse(oldest) + COPIES_KEPT_MS + DAY_MS,
    ].filter((at) => at !== undefined);
    return due.length === 0 ? undefined : Math.min(...due);
  }

  usage(now: number): Usage {
    const [month, day] = [monthOf(now), dayOf(now)];
    const held = this.#storage.sql
      .exec<{ ofMonth: number; ofDay: number; inFlight: number }>(
        `SELECT coalesce(sum(reserved) FILTER (WHERE month = ?), 0) AS ofMonth,
           coalesce(sum(reserved) FILTER (WHERE day = ?), 0) AS ofDay, count(*) AS inFlight
         FROM leases WHERE state = 'reserved' AND expires_at > ?`,
        month,
        day,
        now,
      )
      .one();
    const today = { settled: this.settledIn(day), reserved: held.ofDay };
    return { month, settled: this.settledIn(month), reserved: held.ofMonth, inFlight: held.inFlight, today };
  }

  /** Micro-USD of a month or a day that are charged or held. */
  committedIn(window: string): number {
    const { reserved } = this.#storage.sql
      .exec<{ reserved: number }>(
        `SELECT coalesce(sum(reserved), 0) AS reserved FROM leases
         WHERE state = 'reserved' AND (month = ?1 OR day = ?1)`,
        window,
      )
      .one();
    return this.settledIn(window) + reserved;
  }

  /** Micro-USD charged in a month or on a day. */
  settledIn(window: string): number {
    return this.#window(window).microUsd;
  }

  /** What was charged for requests that began on a day. */
  dayAccount(day: string): DayAccount {
    return this.#window(day);
  }

  /** Tells once of every threshold that a month's spending has reached. */
  tellThresholds(tenant: string, month: string, settled: number, budget: number): void {
    if (budget === 0) return;
    for (const percent of THRESHOLDS) {
      if (settled * 100 < budget * percent) continue;
      this.#tell("budget.threshold", tenant, { month, percent, settled, budget });
    }
  }

  #tellExhausted({ holder, limits }: ReserveRequest, { month, settled }: Usage): void {
    const budget = limits.monthlyBudget;
    const percent = budget === 0 ? 100 : Math.floor((settled * 100) / budget);
    this.#tell("budget.exhausted", holder.tenant, { month, percent, settled, budget });
  }

  #tell(
    type: BudgetMessage["type"],
    tenant: string,
    facts: Pick<BudgetMessage, "month" | "percent" | "settled" | "budget">,
  ): void {
    const what = type === "budget.threshold" ? `${type}.${facts.percent}` : type;
    this.outbox.announce({ kind: "budget", id: `${what}:${tenant}:${facts.month}`, type, tenant, ...facts });
  }

  #window(name: string): DayAccount {
    const [row] = this.#storage.sql
      .exec<{ settled: number; requests: number }>("SELECT settled, requests FROM windows WHERE name = ?", name)
      .toArray();
    return { requests: row?.requests ?? 0, microUsd: row?.settled ?? 0 };
  }

  #hold({ id, holder, limits, leaseMs, idempotent }: ReserveRequest, granted: Offer, now: number): void {
    this.#storage.sql.exec(
      `INSERT INTO leases (id, state, offer, holder, reserved, month, month_budget, day, started_at, expires_at)
       VALUES (?, 'reserved', ?, ?, ?, ?, ?, ?, ?, ?)`,
      id,
      JSON.stringify(granted),
      JSON.stringify(holder),
      granted.cost,
      monthOf(now),
      limits.monthlyBudget,
      dayOf(now),
      now,
      now + leaseMs,
    );
    this.#countStart(now, 1);
    if (idempotent) this.#answers.take(idempotent, id);
  }

  #countStart(at: number, change: 1 | -1): void {
    this.#storage.sql.exec(
      `INSERT INTO starts (second, requests) VALUES (?1, ?2)
       ON CONFLICT (second) DO UPDATE SET requests = requests + ?2`,
      Math.floor(at / 1000),
      change,
    );
  }

  #usageRow(lease: LeaseRow, charged: number, metered: Metered, now: number): UsageRow {
    const { depth, reason } = JSON.parse(lease.offer) as Offer;
    return {
      request_id: lease.id,
      ...(JSON.parse(lease.holder) as Holder),
      depth,
      reason,
      ...metered,
      micro_usd: charged,
      day: lease.day,
      started_at: lease.started_at,
      settled_at: now,
    };
  }

  #earliestExpiry(query: string, ...bindings: number[]): number | undefined {
    return this.#storage.sql.exec<{ at: number | null }>(query, ...bindings).one().at ?? undefined;
  }

  #lease(id: string): LeaseRow | undefined {
    return this.#storage.sql.exec<LeaseRow>("SELECT * FROM leases WHERE id = ?", id).toArray()[0];
  }

  #end(id: string, apply: (lease: LeaseRow) => void): LeaseOutcome {
    const before = this.#lease(id);
    if (before?.state === "reserved") apply(before);
    const lease = this.#lease(id);
    return lease ? { state: lease.state, charged: lease.charged } : { state: "unknown", charged: 0 };
  }

  #rate({ requestsPerMinute: limit }: Limits, now: number): RateState {
    const { sql } = this.#storage;
    const since = now - RATE_WINDOW_MS;
    const [latest] = sql
      .exec<{ started_at: number }>(
        "SELECT started_at FROM leases WHERE state != 'released' AND started_at > ? ORDER BY started_at DESC LIMIT 1",
        since,
      )
      .toArray();
    if (!latest) return { limit, remaining: limit, resetMs: 0 };
    // Whole seconds are counted already; only in the one that the window cuts requests are counted one by one.
    const cut = Math.floor(since / 1000);
    const { used } = sql
      .exec<{ used: number }>(
        `SELECT (SELECT coalesce(sum(requests), 0) FROM starts WHERE second > ?1) +
           (SELECT count(*) FROM leases WHERE state != 'released' AND started_at > ?2 AND started_at < ?3) AS used`,
        cut,
        since,
        (cut + 1) * 1000,
      )
      .one();
    return { limit, remaining: Math.max(0, limit - used), resetMs: latest.started_at + RATE_WINDOW_MS - now };
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
