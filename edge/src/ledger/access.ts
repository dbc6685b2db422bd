import type { Limits } from "./ledger.ts";

/** Who may not be served, whatever the budget says. */
export type AccessRefusal = { refused: "revoked" | "suspended" };

/** What the directory tells a ledger. Telling it again changes nothing. */
export interface AccessChange {
  suspended: boolean;
  /** Micro-USD per month in place of the plan's, or null. */
  monthlyBudget: number | null;
  /** Public ids of keys that are revoked now; those that were told before stay revoked. */
  revoked: readonly string[];
}

/**
 * Who may use a tenant's account: kept in the ledger's SQLite, where every request that costs something comes by, so that a
 * revocation counts from the next request on, whatever a cache still says of the key.
 */
export class Access {
  readonly #storage: DurableObjectStorage;

  constructor(storage: DurableObjectStorage) {
    this.#storage = storage;
    storage.sql.exec(`
      CREATE TABLE IF NOT EXISTS access (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        suspended INTEGER NOT NULL,
        monthly_budget INTEGER
      ) STRICT;
      CREATE TABLE IF NOT EXISTS revoked_keys (id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
    `);
  }

  change({ suspended, monthlyBudget, revoked }: AccessChange): void {
    this.#storage.transactionSync(() => {
      const { sql } = this.#storage;
      sql.exec(
        `INSERT INTO access (one, suspended, monthly_budget) VALUES (1, ?1, ?2)
         ON CONFLICT (one) DO UPDATE SET suspended = ?1, monthly_budget = ?2`,
        suspended ? 1 : 0,
        monthlyBudget,
      );
      for (const id of revoked) sql.exec("INSERT OR IGNORE INTO revoked_keys (id) VALUES (?)", id);
    });
  }

  /** Why a key may not be used, or undefined when it may. A revoked key learns nothing of its tenant's status. */
  refusal(keyId: string): AccessRefusal | undefined {
    const { sql } = this.#storage;
    if (sql.exec("SELECT 1 FROM revoked_keys WHERE id = ?", keyId).toArray().length > 0) return { refused: "revoked" };
    const [row] = sql.exec<{ suspended: number }>("SELECT suspended FROM access").toArray();
    return row?.suspended === 1 ? { refused: "suspended" } : undefined;
  }

  /** A request as it is with the tenant's own budget, where it has one. */
  withOwnBudget<T extends { limits: Limits }>(request: T): T {
    const [row] = this.#storage.sql.exec<{ budget: number | null }>("SELECT monthly_budget AS budget FROM access");
    const budget = row?.budget ?? null;
    return budget === null ? request : { ...request, limits: { ...request.limits, monthlyBudget: budget } };
  }
}
