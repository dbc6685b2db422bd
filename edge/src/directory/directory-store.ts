import type { NewKey, Scope } from "../auth/key-store.ts";
import { AuditLog, type Change, type Origin, type Page } from "./audit-log.ts";
import { invalid, noKey, noTenant, type Outcome } from "./outcome.ts";
import {
  describeKey,
  describeTenant,
  type KeyDescription,
  type KeyEntry,
  type TenantDescription,
  type TenantRecord,
  type TenantStatus,
} from "./records.ts";
import { createTables } from "./schema.ts";

/** Keys of one tenant that are not revoked: a change of the tenant writes each of them anew. */
export const MAX_LIVE_KEYS = 1000;

export type TenantSpec = Pick<TenantRecord, "name" | "plan" | "monthlyBudget">;
export type TenantChange = Partial<Pick<TenantRecord, "plan" | "status" | "monthlyBudget">>;
/** What is kept of a new key. */
export type KeySpec = Omit<NewKey, "key"> & {
  label: string | null;
  scopes: readonly Scope[];
  expiresAt: number | null;
};
export type KeyChange = Partial<Pick<KeySpec, "label" | "scopes" | "expiresAt">>;

/** Tenants, keys and the log of their changes, in SQLite. Every method is one transaction; `now` is in milliseconds. */
export class DirectoryStore {
  readonly audit: AuditLog;
  readonly #storage: DurableObjectStorage;
  readonly #sql: SqlStorage;

  constructor(storage: DurableObjectStorage) {
    createTables(storage.sql);
    this.#storage = storage;
    this.#sql = storage.sql;
    this.audit = new AuditLog(storage.sql);
  }

  createTenant(spec: TenantSpec, by: Origin, now: number): Outcome<TenantDescription> {
    return this.#storage.transactionSync(() => {
      if (this.tenant(spec.name)) return invalid("tenant", `there is a tenant '${spec.name}' already`);
      return { value: this.#insertTenant(spec, by, now) };
    });
  }

  tenant(name: string): TenantRecord | undefined {
    const [row] = this.#sql.exec<TenantRow>("SELECT * FROM tenants WHERE name = ?", name).toArray();
    return row && tenantOf(row);
  }

  listTenants({ limit, after }: Page): { tenants: TenantDescription[]; more: boolean } {
    const rows = this.#sql
      .exec<TenantRow>(
        `SELECT * FROM tenants
         WHERE ?1 IS NULL OR seq < (SELECT seq FROM tenants WHERE name = ?1) ORDER BY seq DESC LIMIT ?2`,
        after ?? null,
        limit + 1,
      )
      .toArray();
    return { tenants: rows.slice(0, limit).map((row) => describeTenant(tenantOf(row))), more: rows.length > limit };
  }

  changeTenant(name: string, change: TenantChange, by: Origin, now: number): Outcome<TenantDescription> {
    return this.#storage.transactionSync(() => {
      const before = this.tenant(name);
      if (!before) return noTenant(name);
      const after = { ...before, ...change };
      this.#sql.exec(
        "UPDATE tenants SET plan = ?, status = ?, monthly_budget = ?, revision = revision + 1 WHERE name = ?",
        after.plan,
        after.status,
        after.monthlyBudget,
        name,
      );
      // Their records in KV carry the plan and the budget.
      this.#sql.exec("UPDATE keys SET revision = revision + 1 WHERE tenant = ? AND revoked_at IS NULL", name);
      const value = describeTenant(after);
      const entry: Change = {
        action: "tenant.change",
        tenant: name,
        target: name,
        before: describeTenant(before),
        after: value,
      };
      this.audit.add(entry, by, now);
      return { value };
    });
  }

  /** @param plan creates the tenant on this plan when it is new, and must be the plan of one that is there */
  createKey(tenant: string, plan: string | undefined, key: KeySpec, by: Origin, now: number): Outcome<KeyDescription> {
    return this.#storage.transactionSync(() => {
      const known = this.tenant(tenant);
      if (!known && plan === undefined) return noTenant(tenant);
      if (known && plan !== undefined && known.plan !== plan) {
        return invalid("plan", `the tenant '${tenant}' is on the plan '${known.plan}'`);
      }
      if (!known && plan !== undefined) this.#insertTenant({ name: tenant, plan, monthlyBudget: null }, by, now);
      const { live } = this.#sql
        .exec<{ live: number }>("SELECT count(*) AS live FROM keys WHERE tenant = ? AND revoked_at IS NULL", tenant)
        .one();
      if (live >= MAX_LIVE_KEYS) return invalid("tenant", `has ${MAX_LIVE_KEYS} keys, which is the most; revoke some`);
      return { value: this.#insertKey(tenant, key, "key.create", null, by, now) };
    });
  }

  key(id: string): KeyEntry | undefined {
    const [row] = this.#sql.exec<KeyRow>("SELECT * FROM keys WHERE id = ?", id).toArray();
    return row && keyOf(row);
  }

  listKeys(tenant: string, { limit, after }: Page, now: number): Outcome<{ keys: KeyDescription[]; more: boolean }> {
    if (!this.tenant(tenant)) return noTenant(tenant);
    const rows = this.#sql
      .exec<KeyRow>(
        `SELECT * FROM keys WHERE tenant = ?1
         AND (?2 IS NULL OR seq < (SELECT seq FROM keys WHERE id = ?2 AND tenant = ?1)) ORDER BY seq DESC LIMIT ?3`,
        tenant,
        after ?? null,
        limit + 1,
      )
      .toArray();
    const keys = rows.slice(0, limit).map((row) => describeKey(keyOf(row), now));
    return { value: { keys, more: rows.length > limit } };
  }

  changeKey(id: string, change: KeyChange, by: Origin, now: number): Outcome<KeyDescription> {
    return this.#storage.transactionSync(() => {
      const before = this.key(id);
      if (!before) return noKey(id);
      if (before.revokedAt !== null) return invalid("id", "the key is revoked: that is for ever");
      const after: KeyEntry = { ...before, ...change, scopes: [...(change.scopes ?? before.scopes)] };
      return { value: this.#updateKey(before, after, "key.change", by, now) };
    });
  }

  /** Revoking again changes nothing. */
  revokeKey(id: string, by: Origin, now: number): Outcome<KeyDescription> {
    return this.#storage.transactionSync(() => {
      const before = this.key(id);
      if (!before) return noKey(id);
      if (before.revokedAt !== null) return { value: describeKey(before, now) };
      return { value: this.#updateKey(before, { ...before, revokedAt: now }, "key.revoke", by, now) };
    });
  }

  /**
   * Puts a new key in an old one's place, with its label, scopes and expiry.
   * @param overlapMs how long the old one may still be used; 0 revokes it
   */
  rotateKey(
    id: string,
    next: Omit<NewKey, "key">,
    overlapMs: number,
    by: Origin,
    now: number,
  ): Outcome<{ created: KeyDescription; replaced: KeyDescription }> {
    return this.#storage.transactionSync(() => {
      const before = this.key(id);
      if (!before) return noKey(id);
      if (describeKey(before, now).status !== "active") return invalid("id", "the key may not be used any more");
      const { tenant, label, scopes, expiresAt } = before;
      const until = Math.min(before.expiresAt ?? Number.POSITIVE_INFINITY, now + overlapMs);
      const after: KeyEntry = overlapMs === 0 ? { ...before, revokedAt: now } : { ...before, expiresAt: until };
      const replaced = this.#updateKey(before, after, overlapMs === 0 ? "key.revoke" : "key.change", by, now);
      const spec = { ...next, label, scopes, expiresAt };
      const created = this.#insertKey(tenant, spec, "key.rotate", describeKey(before, now), by, now);
      return { value: { created, replaced } };
    });
  }

  #insertTenant({ name, plan, monthlyBudget }: TenantSpec, by: Origin, now: number): TenantDescription {
    const status: TenantStatus = "active";
    this.#sql.exec(
      "INSERT INTO tenants (name, plan, status, monthly_budget, created_at) VALUES (?, ?, ?, ?, ?)",
      name,
      plan,
      status,
      monthlyBudget,
      now,
    );
    const after = describeTenant({ name, plan, status, monthlyBudget, createdAt: now });
    this.audit.add({ action: "tenant.create", tenant: name, target: name, before: null, after }, by, now);
    return after;
  }

  #insertKey(
    tenant: string,
    { id, secretSha256, last4, label, scopes, expiresAt }: KeySpec,
    action: Change["action"],
    before: KeyDescription | null,
    by: Origin,
    now: number,
  ): KeyDescription {
    this.#sql.exec(
      `INSERT INTO keys (id, tenant, secret_sha256, last4, label, scopes, created_at, expires_at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
      id,
      tenant,
      secretSha256,
      last4,
      label,
      JSON.stringify(scopes),
      now,
      expiresAt,
    );
    const entry: KeyEntry = {
      id,
      tenant,
      secretSha256,
      last4,
      label,
      scopes: [...scopes],
      createdAt: now,
      expiresAt,
      revokedAt: null,
    };
    const after = describeKey(entry, now);
    this.audit.add({ action, tenant, target: id, before, after }, by, now);
    return after;
  }

  #updateKey(before: KeyEntry, after: KeyEntry, action: Change["action"], by: Origin, now: number): KeyDescription {
    this.#sql.exec(
      `UPDATE keys SET label = ?, scopes = ?, expires_at = ?, revoked_at = ?, revision = revision + 1 WHERE id = ?`,
      after.label,
      JSON.stringify(after.scopes),
      after.expiresAt,
      after.revokedAt,
      after.id,
    );
    const value = describeKey(after, now);
    const { tenant, id } = after;
    this.audit.add({ action, tenant, target: id, before: describeKey(before, now), after: value }, by, now);
    return value;
  }
}

export type TenantRow = {
  name: string;
  plan: string;
  status: string;
  monthly_budget: number | null;
  created_at: number;
  revision: number;
};

export type KeyRow = {
  id: string;
  tenant: string;
  secret_sha256: string;
  last4: string;
  label: string | null;
  scopes: string;
  created_at: number;
  expires_at: number | null;
  revoked_at: number | null;
  revision: number;
};

export function tenantOf({ name, plan, status, monthly_budget, created_at }: TenantRow): TenantRecord {
  return { name, plan, status: status as TenantStatus, monthlyBudget: monthly_budget, createdAt: created_at };
}

export function keyOf(row: KeyRow): KeyEntry {
  return {
    id: row.id,
    tenant: row.tenant,
    secretSha256: row.secret_sha256,
    last4: row.last4,
    label: row.label,
    scopes: JSON.parse(row.scopes) as Scope[],
    createdAt: row.created_at,
    expiresAt: row.expires_at,
    revokedAt: row.revoked_at,
  };
}
