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

/** All that a ledger knows of who may use the account. */
export interface AccessState {
  /** Grows with every change: an older state must not take the place of a newer one. */
  version: number;
  suspended: boolean;
  monthlyBudget: number | null;
  revoked: string[];
}

/**
 * Who may use a tenant's account: kept in the ledger's SQLite, where every request that costs something comes by, so that a
 * revocation counts from the next request on, whatever a cache still says of the key. The shards of a ledger follow it.
 */
export class Access {
  readonly #storage: DurableObjectStorage;

  constructor(storage: DurableObjectStorage) {
    this.#storage = storage;
    storage.sql.exec(`
      CREATE TABLE IF NOT EXISTS access (
        one INTEGER PRIMARY KEY CHECK (one = 1),
        version INTEGER NOT NULL,
        suspended INTEGER NOT NULL,
        monthly_budget INTEGER
      ) STRICT;
      CREATE TABLE IF NOT EXISTS revoked_keys (id TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
      CREATE TABLE IF NOT EXISTS access_followers (shard TEXT PRIMARY KEY) STRICT, WITHOUT ROWID;
    `);
  }

  /** Whether anything was ever said. */
  get isTold(): boolean {
    return this.#row() !== undefined;
  }

  change({ suspended, monthlyBudget, revoked }: AccessChange): void {
    this.take({ version: (this.#row()?.version ?? 0) + 1, suspended, monthlyBudget, revoked: [...revoked] });
  }

  /** Takes over what another ledger knows. What was revoked stays so; an older state changes nothing else. */
  take({ version, suspended, monthlyBudget, revoked }: AccessState): void {
    this.#storage.transactionSync(() => {
      const { sql } = this.#storage;
      sql.exec(
        `INSERT INTO access (one, version, suspended, monthly_budget) VALUES (1, ?1, ?2, ?3)
         ON CONFLICT (one) DO UPDATE SET version = ?1, suspended = ?2, monthly_budget = ?3 WHERE version <= ?1`,
        version,
        suspended ? 1 : 0,
        monthlyBudget,
      );
      for (const id of revoked) sql.exec("INSERT OR IGNORE INTO revoked_keys (id) VALUES (?)", id);
    });
  }

  state(): AccessState {
    const { version = 0, suspended = 0, monthly_budget: monthlyBudget = null } = this.#row() ?? {};
    const keys = this.#storage.sql.exec<{ id: string }>("SELECT id FROM revoked_keys").toArray();
    return { version, suspended: suspended === 1, monthlyBudget, revoked: keys.map(({ id }) => id) };
  }

  /** Remembers a shard that is to be told of changes. */
  follow(shard: string): void {
    this.#storage.sql.exec("INSERT OR IGNORE INTO access_followers (shard) VALUES (?)", shard);
  }

  followers(): string[] {
    const rows = this.#storage.sql.exec<{ shard: string }>("SELECT shard FROM access_followers").toArray();
    return rows.map(({ shard }) => shard);
  }

  /** Why a key may not be used, or undefined when it may. A revoked key learns nothing of its tenant's status. */
  refusal(keyId: string): AccessRefusal | undefined {
    const { sql } = this.#storage;
    if (sql.exec("SELECT 1 FROM revoked_keys WHERE id = ?", keyId).toArray().length > 0) return { refused: "revoked" };
    return this.#row()?.suspended === 1 ? { refused: "suspended" } : undefined;
  }

  /** A request as it is with the tenant's own budget, where it has one. */
  withOwnBudget<T extends { limits: Limits }>(request: T): T {
    const budget = this.#row()?.monthly_budget ?? null;
    return budget === null ? request : { ...request, limits: { ...request.limits, monthlyBudget: budget } };
  }

  #row() {
    return this.#storage.sql
      .exec<{ version: number; suspended: number; monthly_budget: number | null }>("SELECT * FROM access")
      .toArray()[0];
  }
}
