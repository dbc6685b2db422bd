import { dropKey, putKey } from "../auth/key-store.ts";
import { type KeyRow, keyOf, type TenantRow, tenantOf } from "./directory-store.ts";
import { kvRecordOf } from "./records.ts";

/** Records written to KV in one go: an invocation may do only so many. */
const MAX_RECORDS = 200;

/**
 * Carries changes to where requests are served: revocations, status and budget to the tenant's ledger, which has the last
 * word, then the keys to KV, where they are read. What fails is not published, so that it is done again.
 */
export class Publication {
  readonly #sql: SqlStorage;
  readonly #env: Env;
  #turn: Promise<unknown> = Promise.resolve();

  constructor(sql: SqlStorage, env: Env) {
    this.#sql = sql;
    this.#env = env;
  }

  /** Tenants with something to publish. */
  pending(): string[] {
    return this.#sql
      .exec<{ name: string }>(
        `SELECT name FROM tenants WHERE revision != published
         UNION SELECT tenant AS name FROM keys WHERE revision != published LIMIT 100`,
      )
      .toArray()
      .map(({ name }) => name);
  }

  /**
   * Publishes what there is of a tenant, one after the other: an older state must not be written over a newer one.
   * @returns whether the ledger knows; KV may still have to be told then.
   */
  async publish(name: string): Promise<boolean> {
    const mine = this.#turn.then(async () => await this.#publish(name));
    this.#turn = mine.catch(() => undefined);
    return await mine;
  }

  /** Never throws. */
  async #publish(name: string): Promise<boolean> {
    const row = this.#sql.exec<TenantRow>("SELECT * FROM tenants WHERE name = ?", name).one();
    // The revoked ones first: they must not wait for the others.
    const keys = this.#sql
      .exec<KeyRow>(
        `SELECT * FROM keys WHERE tenant = ? AND revision != published ORDER BY revoked_at IS NULL LIMIT ?`,
        name,
        MAX_RECORDS,
      )
      .toArray();
    const revoked = keys.filter(({ revoked_at }) => revoked_at !== null).map(({ id }) => id);
    const tenant = tenantOf(row);
    try {
      const { status, monthlyBudget } = tenant;
      const change = { suspended: status === "suspended", monthlyBudget, revoked };
      await this.#env.LEDGER.getByName(name).changeAccess(change);
      this.#sql.exec("UPDATE tenants SET published = ? WHERE name = ?", row.revision, name);
    } catch (error) {
      console.error(JSON.stringify({ directory: "ledger not told", tenant: name, error: String(error) }));
      return false;
    }
    const written = await Promise.allSettled(
      keys.map(async (key) => {
        if (key.revoked_at === null) await putKey(this.#env.KEYS, key.id, kvRecordOf(keyOf(key), tenant));
        else await dropKey(this.#env.KEYS, key.id);
        this.#sql.exec("UPDATE keys SET published = ? WHERE id = ?", key.revision, key.id);
      }),
    );
    const failed = written.find((result) => result.status === "rejected");
    if (failed) {
      console.error(JSON.stringify({ directory: "KV not told", tenant: name, error: String(failed.reason) }));
    }
    return true;
  }
}
