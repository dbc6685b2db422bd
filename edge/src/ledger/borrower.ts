import { type Allotment, giveBack, held, NO_ALLOTMENT, receive } from "./allotment.ts";
import type { Ledger, Limits, Sharing } from "./ledger.ts";
import type { DrawRequest, WindowReport } from "./lending.ts";
import { type Shard, shardName } from "./shard.ts";
import { dayOf, monthOf } from "./windows.ts";

/** What a shard holds of its tenant's budgets: {@link Allotment}s in SQLite. */
export class Borrower {
  readonly #storage: DurableObjectStorage;
  readonly #ledger: Ledger;

  constructor(storage: DurableObjectStorage, ledger: Ledger) {
    this.#storage = storage;
    this.#ledger = ledger;
  }

  /** Everything that this shard does not hold is lent to others. */
  sharing(limits: Limits, now: number): Sharing {
    const day = limits.dailyBudget === undefined ? 0 : limits.dailyBudget - held(this.#allotment(dayOf(now)));
    return { lent: { month: limits.monthlyBudget - held(this.#allotment(monthOf(now))), day } };
  }

  /** What to ask the tenant's ledger for, so that an offer of `cost` is covered here. */
  drawRequest(shard: Shard, limits: Limits, cost: number, now: number): DrawRequest {
    const windows = [{ window: monthOf(now), budget: limits.monthlyBudget }];
    if (limits.dailyBudget !== undefined) windows.push({ window: dayOf(now), budget: limits.dailyBudget });
    return {
      tenant: shard.tenant,
      child: shardName(shard),
      shards: shard.of,
      month: monthOf(now),
      monthlyBudget: limits.monthlyBudget,
      windows: windows.map(({ window, budget }) => ({
        ...this.report(window),
        budget,
        need: Math.max(0, cost - this.#idle(window)),
      })),
    };
  }

  /** Hears what was granted. */
  receive(window: string, granted: number): void {
    this.#save(window, receive(this.#allotment(window), granted));
  }

  /** Gives up what is neither charged nor held. @returns micro-USD */
  giveBackIdle(window: string): number {
    const idle = this.#idle(window);
    if (idle > 0) this.#save(window, giveBack(this.#allotment(window), idle));
    return Math.max(0, idle);
  }

  report(window: string): WindowReport {
    return { window, ...this.#allotment(window), settled: this.#ledger.settledIn(window) };
  }

  /** Micro-USD ever given back, of all windows: tells whether a recall came in between. */
  givenBack(): number {
    return this.#storage.sql.exec<{ sum: number }>("SELECT coalesce(sum(given_back), 0) AS sum FROM allotments").one()
      .sum;
  }

  /** Forgets days, whose names are longer than those of months, before one. */
  prune(before: string): void {
    this.#storage.sql.exec("DELETE FROM allotments WHERE length(name) > 7 AND name < ?", before);
  }

  #idle(window: string): number {
    return held(this.#allotment(window)) - this.#ledger.committedIn(window);
  }

  #allotment(window: string): Allotment {
    const [row] = this.#storage.sql
      .exec<{ received: number; given_back: number }>(
        "SELECT received, given_back FROM allotments WHERE name = ?",
        window,
      )
      .toArray();
    return row ? { received: row.received, givenBack: row.given_back } : NO_ALLOTMENT;
  }

  #save(window: string, { received, givenBack }: Allotment): void {
    this.#storage.sql.exec(
      "INSERT OR REPLACE INTO allotments (name, received, given_back) VALUES (?, ?, ?)",
      window,
      received,
      givenBack,
    );
  }
}
