/** The directory's tables. `seq` is the order in which rows came; `published` is the revision that the request path knows. */
export function createTables(sql: SqlStorage): void {
  sql.exec(`
    CREATE TABLE IF NOT EXISTS tenants (
      seq INTEGER PRIMARY KEY AUTOINCREMENT,
      name TEXT NOT NULL UNIQUE,
      plan TEXT NOT NULL,
      status TEXT NOT NULL,
      monthly_budget INTEGER,
      created_at INTEGER NOT NULL,
      revision INTEGER NOT NULL DEFAULT 1,
      published INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX IF NOT EXISTS tenants_unpublished ON tenants (name) WHERE revision != published;
    CREATE TABLE IF NOT EXISTS keys (
      seq INTEGER PRIMARY KEY AUTOINCREMENT,
      id TEXT NOT NULL UNIQUE,
      tenant TEXT NOT NULL REFERENCES tenants (name),
      secret_sha256 TEXT NOT NULL,
      last4 TEXT NOT NULL,
      label TEXT,
      scopes TEXT NOT NULL,
      created_at INTEGER NOT NULL,
      expires_at INTEGER,
      revoked_at INTEGER,
      revision INTEGER NOT NULL DEFAULT 1,
      published INTEGER NOT NULL DEFAULT 0
    ) STRICT;
    CREATE INDEX IF NOT EXISTS keys_by_tenant ON keys (tenant, seq);
    CREATE INDEX IF NOT EXISTS keys_unpublished ON keys (tenant) WHERE revision != published;
    CREATE TABLE IF NOT EXISTS audit (
      seq INTEGER PRIMARY KEY AUTOINCREMENT,
      actor TEXT NOT NULL,
      action TEXT NOT NULL,
      tenant TEXT NOT NULL,
      target TEXT NOT NULL,
      before TEXT,
      after TEXT NOT NULL,
      request_id TEXT NOT NULL,
      at INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX IF NOT EXISTS audit_by_tenant ON audit (tenant, seq);
    CREATE TRIGGER IF NOT EXISTS audit_keeps BEFORE UPDATE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
    CREATE TRIGGER IF NOT EXISTS audit_stays BEFORE DELETE ON audit BEGIN SELECT RAISE(ABORT, 'the audit log is append-only'); END;
  `);
}
