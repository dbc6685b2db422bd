import type { AuditDescription, KeyDescription, TenantDescription } from "./records.ts";

/** Who changes something, and with which request. */
export interface Origin {
  actor: string;
  requestId: string;
}

/** What became of something. Descriptions only: they have no secrets. */
export interface Change {
  action: AuditDescription["action"];
  tenant: string;
  target: string;
  before: TenantDescription | KeyDescription | null;
  after: TenantDescription | KeyDescription;
}

/** A part of a list: newest first, what comes after an id. */
export interface Page {
  limit: number;
  after?: string;
}

/** The log of all changes: entries are added, in the transaction of their change, and never altered. */
export class AuditLog {
  readonly #sql: SqlStorage;

  constructor(sql: SqlStorage) {
    this.#sql = sql;
  }

  add({ action, tenant, target, before, after }: Change, { actor, requestId }: Origin, now: number): void {
    this.#sql.exec(
      `INSERT INTO audit (actor, action, tenant, target, before, after, request_id, at)
       VALUES (?, ?, ?, ?, ?, ?, ?, ?)`,
      actor,
      action,
      tenant,
      target,
      before && JSON.stringify(before),
      JSON.stringify(after),
      requestId,
      now,
    );
  }

  /** @param tenant of this one only, if it is given */
  list({ limit, after }: Page, tenant: string | undefined): { entries: AuditDescription[]; more: boolean } {
    const rows = this.#sql
      .exec<AuditRow>(
        `SELECT * FROM audit WHERE seq < ?1 AND (?2 IS NULL OR tenant = ?2) ORDER BY seq DESC LIMIT ?3`,
        after === undefined ? Number.MAX_SAFE_INTEGER : Number(after),
        tenant ?? null,
        limit + 1,
      )
      .toArray();
    return { entries: rows.slice(0, limit).map(describe), more: rows.length > limit };
  }
}

type AuditRow = {
  seq: number;
  actor: string;
  action: string;
  tenant: string;
  target: string;
  before: string | null;
  after: string;
  request_id: string;
  at: number;
};

function describe({ seq, before, after, at, ...rest }: AuditRow): AuditDescription {
  return {
    id: String(seq),
    object: "audit_entry",
    ...(rest as Pick<AuditDescription, "actor" | "action" | "tenant" | "target" | "request_id">),
    before: before === null ? null : (JSON.parse(before) as AuditDescription["before"]),
    after: JSON.parse(after) as AuditDescription["after"],
    at: Math.floor(at / 1000),
  };
}
