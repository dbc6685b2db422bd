-- What every answer used and cost. See src/usage/usage-row.ts.
CREATE TABLE IF NOT EXISTS usage (
  request_id TEXT PRIMARY KEY,
  tenant TEXT NOT NULL,
  ledger TEXT NOT NULL,
  key_id TEXT NOT NULL,
  plan TEXT NOT NULL,
  model TEXT NOT NULL,
  service TEXT NOT NULL,
  depth INTEGER NOT NULL,
  exit TEXT NOT NULL,
  reason TEXT NOT NULL,
  prompt_tokens INTEGER NOT NULL,
  completion_tokens INTEGER NOT NULL,
  layer_tokens INTEGER NOT NULL,
  micro_usd INTEGER NOT NULL,
  day TEXT NOT NULL,
  started_at INTEGER NOT NULL,
  settled_at INTEGER NOT NULL,
  status TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS usage_by_tenant ON usage (tenant, day, key_id, depth);
CREATE INDEX IF NOT EXISTS usage_by_ledger ON usage (ledger, day, request_id);

-- The ledgers that have charged anything: tenants, and the shards of tenants.
CREATE TABLE IF NOT EXISTS ledgers (
  name TEXT PRIMARY KEY,
  tenant TEXT NOT NULL
) STRICT;
CREATE INDEX IF NOT EXISTS ledgers_by_tenant ON ledgers (tenant);

-- The nightly comparison of a tenant's ledgers with the table usage.
CREATE TABLE IF NOT EXISTS reconciliations (
  tenant TEXT NOT NULL,
  day TEXT NOT NULL,
  ledger_micro_usd INTEGER NOT NULL,
  usage_micro_usd INTEGER NOT NULL,
  missing INTEGER NOT NULL,
  surplus INTEGER NOT NULL,
  changed INTEGER NOT NULL,
  outcome TEXT NOT NULL,
  checked_at INTEGER NOT NULL,
  PRIMARY KEY (tenant, day)
) STRICT;
