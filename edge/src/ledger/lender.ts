import { grant, grantRest, NO_SHARE, type Share, takeBack } from "./allotment.ts";
import type { DrawRequest, WindowReport } from "./lending.ts";

type ShareRow = { child: string; granted: number; returned: number };

/** What a tenant's ledger has lent to its shards: {@link Share}s in SQLite. */
export class Lender {
  readonly #storage: DurableObjectStorage;

  constructor(storage: DurableObjectStorage) {
    this.#storage = storage;
  }

  /** Micro-USD of a month or a day that shards hold, spent or not. */
  lentIn(window: string): number {
    return this.#sum("granted - returned", window);
  }

  /** Micro-USD of it that shards are known to have charged. */
  settledIn(window: string): number {
    return this.#sum("settled", window);
  }

  /** The shards that were ever lent of a month or a day, with what they were granted. */
  borrowers(window: string): { child: string; granted: number }[] {
    return this.#storage.sql
      .exec<{ child: string; granted: number }>("SELECT child, granted FROM shares WHERE name = ?", window)
      .toArray();
  }

  /** A shard's own words of what it gave back and charged. */
  hear(child: string, { window, givenBack, settled }: WindowReport): void {
    const share = takeBack(this.#share(child, window), givenBack);
    this.#save(child, window, share, settled);
  }

  /**
   * Hears the shard, and grants what it needs as far as that is free.
   * @param rest whether to grant what there is when it is less than the need
   * @param committed what the tenant's ledger has charged and holds itself in a window
   * @returns the windows in which the need is not met
   */
  lend(request: DrawRequest, committed: (window: string) => number, rest: boolean): string[] {
    return this.#storage.transactionSync(() => {
      const unmet: string[] = [];
      for (const report of request.windows) {
        const { window, budget, need, received } = report;
        this.hear(request.child, report);
        const share = this.#share(request.child, window);
        const free = budget - committed(window) - this.lentIn(window);
        const next = rest ? grantRest(share, received, need, free) : grant(share, received, need, free, request.shards);
        this.#save(request.child, window, next, report.settled);
        if (next.granted - received < need) unmet.push(window);
      }
      return unmet;
    });
  }

  granted(child: string, window: string): number {
    return this.#share(child, window).granted;
  }

  /** Forgets days, whose names are longer than those of months, before one. */
  prune(before: string): void {
    this.#storage.sql.exec("DELETE FROM shares WHERE length(name) > 7 AND name < ?", before);
  }

  #share(child: string, window: string): Share {
    const [row] = this.#storage.sql
      .exec<ShareRow>("SELECT child, granted, returned FROM shares WHERE child = ? AND name = ?", child, window)
      .toArray();
    return row ? { granted: row.granted, returned: row.returned } : NO_SHARE;
  }

  #save(child: string, window: string, share: Share, settled: number): void {
    this.#storage.sql.exec(
      `INSERT INTO shares (child, name, granted, returned, settled) VALUES (?1, ?2, ?3, ?4, ?5)
       ON CONFLICT (child, name) DO UPDATE SET granted = ?3, returned = ?4, settled = max(settled, ?5)`,
      child,
      window,
      share.granted,
      share.returned,
      settled,
    );
  }

  #sum(what: "granted - returned" | "settled", window: string): number {
    return this.#storage.sql
      .exec<{ sum: number }>(`SELECT coalesce(sum(${what}), 0) AS sum FROM shares WHERE name = ?`, window)
      .one().sum;
  }
}
