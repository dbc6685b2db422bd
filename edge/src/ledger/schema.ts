/** Steps that bring the database of a ledger from one version to the next. Never edit one that was deployed: add another. */
const STEPS = [
  // Ledgers were made with this before they had versions.
  `CREATE TABLE IF NOT EXISTS leases (
     id TEXT PRIMARY KEY,
     state TEXT NOT NULL,
     offer TEXT NOT NULL,
     reserved INTEGER NOT NULL,
     charged INTEGER NOT NULL DEFAULT 0,
     month TEXT NOT NULL,
     started_at INTEGER NOT NULL,
     expires_at INTEGER NOT NULL
   ) STRICT;
   CREATE INDEX IF NOT EXISTS leases_by_start ON leases (started_at, state);
   CREATE INDEX IF NOT EXISTS leases_by_expiry ON leases (expires_at);
   CREATE INDEX IF NOT EXISTS leases_in_flight ON leases (expires_at, reserved) WHERE state = 'reserved';
   CREATE TABLE IF NOT EXISTS months (month TEXT PRIMARY KEY, settled INTEGER NOT NULL) STRICT;`,

  `ALTER TABLE leases ADD COLUMN day TEXT NOT NULL DEFAULT '';
   UPDATE leases SET day = date(started_at / 1000, 'unixepoch');
   ALTER TABLE leases ADD COLUMN holder TEXT NOT NULL DEFAULT '{"tenant":"","ledger":"","key_id":"","plan":"","model":""}';
   ALTER TABLE leases ADD COLUMN month_budget INTEGER NOT NULL DEFAULT 0;
   DROP INDEX leases_in_flight;
   CREATE INDEX leases_in_flight ON leases (expires_at, month, day, reserved) WHERE state = 'reserved';

   CREATE TABLE windows (name TEXT PRIMARY KEY, settled INTEGER NOT NULL, requests INTEGER NOT NULL) STRICT;
   INSERT INTO windows SELECT month, settled, 0 FROM months;
   DROP TABLE months;

   CREATE TABLE usage_rows (
     request_id TEXT PRIMARY KEY,
     day TEXT NOT NULL,
     data TEXT NOT NULL
   ) STRICT;
   CREATE INDEX usage_rows_by_day ON usage_rows (day, request_id);
   CREATE TABLE outbox (
     sequence INTEGER PRIMARY KEY AUTOINCREMENT,
     kind TEXT NOT NULL,
     id TEXT NOT NULL UNIQUE,
     data TEXT
   ) STRICT;
   CREATE TABLE announced (id TEXT PRIMARY KEY) STRICT;

   CREATE TABLE answers (
     key TEXT PRIMARY KEY,
     fingerprint TEXT NOT NULL,
     request_id TEXT NOT NULL UNIQUE,
     offer TEXT,
     body TEXT,
     stored_at INTEGER
   ) STRICT;
   CREATE INDEX answers_by_age ON answers (stored_at);

   CREATE TABLE shares (
     child TEXT NOT NULL,
     name TEXT NOT NULL,
     granted INTEGER NOT NULL,
     returned INTEGER NOT NULL,
     settled INTEGER NOT NULL,
     PRIMARY KEY (child, name)
   ) STRICT;
   CREATE TABLE allotments (
     name TEXT PRIMARY KEY,
     received INTEGER NOT NULL,
     given_back INTEGER NOT NULL
   ) STRICT;
   CREATE TABLE facts (name TEXT PRIMARY KEY, value TEXT NOT NULL) STRICT;`,

  // How many requests began in a second, those that were released left out: the rate need not count them one by one.
  `CREATE TABLE starts (second INTEGER PRIMARY KEY, requests INTEGER NOT NULL) STRICT;
   INSERT INTO starts SELECT started_at / 1000, count(*) FROM leases WHERE state != 'released' GROUP BY 1;`,
];

/** Brings the database to the newest version, in one transaction. */
export function migrate(storage: DurableObjectStorage): void {
  const { sql } = storage;
  storage.transactionSync(() => {
    sql.exec("CREATE TABLE IF NOT EXISTS schema (version INTEGER NOT NULL) STRICT");
    const [row] = sql.exec<{ version: number }>("SELECT version FROM schema").toArray();
    const version = row?.version ?? 0;
    if (version === STEPS.length) return;
    for (const step of STEPS.slice(version)) sql.exec(step);
    sql.exec("DELETE FROM schema");
    sql.exec("INSERT INTO schema (version) VALUES (?)", STEPS.length);
  });
}
