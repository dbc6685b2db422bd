import { z } from "zod";
import type { DayAccount } from "../ledger/ledger.ts";
import type { TenantLedger } from "../ledger/tenant-ledger.ts";
import { ensureSchema } from "./database.ts";
import { diffUsage, type UsageDiff } from "./diff-usage.ts";
import type { EventMessage } from "./events.ts";
import { insertUsage } from "./store-usage.ts";
import { UsageRow } from "./usage-row.ts";

/** A tenant's day to be compared. */
export const ReconcileJob = z.object({ tenant: z.string(), day: z.iso.date() });
export type ReconcileJob = z.infer<typeof ReconcileJob>;

/** What a comparison came to. Amounts in micro-USD, those of before a repair. */
export interface Reconciliation {
  tenant: string;
  day: string;
  ledger_micro_usd: number;
  usage_micro_usd: number;
  missing: number;
  surplus: number;
  changed: number;
  /** `unexplained`: they differ, and the ledger has no longer the rows to say where. Nothing was changed. */
  outcome: "equal" | "repaired" | "unexplained";
}

/** Statements in one transaction of the database. */
const BATCH = 100;

const Sums = z.object({
  requests: z.number(),
  prompt_tokens: z.number(),
  completion_tokens: z.number(),
  layer_tokens: z.number(),
  micro_usd: z.number(),
});

/**
 * Compares what a tenant's ledgers charged on a day with the table, and makes the table equal to them: the ledger is right.
 * The result is logged and stored, and the day is told to the billing webhook once it is right.
 */
export async function reconcile({ tenant, day }: ReconcileJob, env: Env): Promise<Reconciliation> {
  await ensureSchema(env.USAGE);
  const before = await sumsOf(env.USAGE, tenant, day);
  const ledgers = await ledgersOf(env.USAGE, tenant);
  const accounts = await Promise.all(ledgers.map((name) => env.LEDGER.getByName(name).dayAccount(day)));
  const account = accounts.reduce(
    (sum, { requests, microUsd }) => ({ requests: sum.requests + requests, microUsd: sum.microUsd + microUsd }),
    { requests: 0, microUsd: 0 },
  );
  const result: Reconciliation = {
    tenant,
    day,
    ledger_micro_usd: account.microUsd,
    usage_micro_usd: before.micro_usd,
    missing: 0,
    surplus: 0,
    changed: 0,
    outcome: "equal",
  };
  let sums = before;
  if (!agrees(account, before)) {
    for (const [i, name] of ledgers.entries()) {
      const own = accounts[i];
      const ledger = env.LEDGER.getByName(name);
      if (!own || !(await hasAllCopies(ledger, day, own))) continue;
      const counts = await repair(env.USAGE, ledger, name, day);
      result.missing += counts.missing;
      result.surplus += counts.surplus;
      result.changed += counts.changed;
    }
    sums = await sumsOf(env.USAGE, tenant, day);
    result.outcome = agrees(account, sums) ? "repaired" : "unexplained";
  }
  const line = JSON.stringify({ reconciliation: result });
  if (result.outcome === "unexplained") console.error(line);
  else console.log(line);
  if (result.outcome !== "unexplained") await tellDay(env, tenant, day, sums);
  await store(env.USAGE, result);
  return result;
}

function agrees(account: DayAccount, sums: z.infer<typeof Sums>): boolean {
  return account.requests === sums.requests && account.microUsd === sums.micro_usd;
}

async function sumsOf(db: D1Database, tenant: string, day: string): Promise<z.infer<typeof Sums>> {
  const row = await db
    .prepare(
      `SELECT count(*) AS requests, coalesce(sum(prompt_tokens), 0) AS prompt_tokens,
         coalesce(sum(completion_tokens), 0) AS completion_tokens, coalesce(sum(layer_tokens), 0) AS layer_tokens,
         coalesce(sum(micro_usd), 0) AS micro_usd
       FROM usage WHERE tenant = ? AND day = ?`,
    )
    .bind(tenant, day)
    .first();
  return Sums.parse(row);
}

async function ledgersOf(db: D1Database, tenant: string): Promise<string[]> {
  const { results } = await db
    .prepare("SELECT name FROM ledgers WHERE tenant = ?")
    .bind(tenant)
    .all<{ name: string }>();
  return [...new Set([tenant, ...results.map(({ name }) => name)])];
}

/** Whether the ledger still has a copy of every row of the day: without one, a row of the table could seem surplus. */
async function hasAllCopies(
  ledger: DurableObjectStub<TenantLedger>,
  day: string,
  account: DayAccount,
): Promise<boolean> {
  let [requests, microUsd] = [0, 0];
  for await (const page of copiesOf(ledger, day)) {
    requests += page.rows.length;
    for (const row of page.rows) microUsd += row.micro_usd;
  }
  return requests === account.requests && microUsd === account.microUsd;
}

interface Page {
  /** Bounds of the request ids: above `after`, up to `upTo`. */
  after: string;
  upTo: string | undefined;
  rows: UsageRow[];
}

async function* copiesOf(ledger: DurableObjectStub<TenantLedger>, day: string): AsyncGenerator<Page> {
  for (let after = ""; ; ) {
    const rows: UsageRow[] = await ledger.copies(day, after);
    const upTo = rows.at(-1)?.request_id;
    yield { after, upTo, rows };
    if (upTo === undefined) return;
    after = upTo;
  }
}

async function repair(
  db: D1Database,
  ledger: DurableObjectStub<TenantLedger>,
  name: string,
  day: string,
): Promise<Record<keyof UsageDiff, number>> {
  const counts = { missing: 0, surplus: 0, changed: 0 };
  for await (const page of copiesOf(ledger, day)) {
    const diff = diffUsage(page.rows, await stored(db, name, day, page));
    const statements = [
      ...[...diff.missing, ...diff.changed].map((row) => insertUsage(db, row, "REPLACE")),
      ...diff.surplus.map((id) => db.prepare("DELETE FROM usage WHERE request_id = ?").bind(id)),
    ];
    for (let i = 0; i < statements.length; i += BATCH) await db.batch(statements.slice(i, i + BATCH));
    counts.missing += diff.missing.length;
    counts.surplus += diff.surplus.length;
    counts.changed += diff.changed.length;
  }
  return counts;
}

async function stored(db: D1Database, ledger: string, day: string, { after, upTo }: Page): Promise<UsageRow[]> {
  const { results } = await db
    .prepare(
      `SELECT * FROM usage WHERE ledger = ?1 AND day = ?2 AND request_id > ?3 AND (?4 IS NULL OR request_id <= ?4)
       ORDER BY request_id`,
    )
    .bind(ledger, day, after, upTo ?? null)
    .all();
  return results.map((row) => UsageRow.parse(row));
}

/** Once, although a day is compared twice; the id is the same should it be sent again all the same. */
async function tellDay(env: Env, tenant: string, day: string, sums: z.infer<typeof Sums>): Promise<void> {
  if (sums.requests === 0) return;
  const earlier = await env.USAGE.prepare("SELECT outcome FROM reconciliations WHERE tenant = ? AND day = ?")
    .bind(tenant, day)
    .first<{ outcome: string }>();
  if (earlier && earlier.outcome !== "unexplained") return;
  const event: EventMessage = {
    id: `usage.daily:${tenant}:${day}`,
    type: "usage.daily",
    timestamp: new Date().toISOString(),
    data: { tenant, day, ...sums },
  };
  await env.EVENTS_QUEUE.send(event);
}

/** A second look that finds everything equal leaves the first one's findings. */
async function store(db: D1Database, result: Reconciliation): Promise<void> {
  const { tenant, day, ledger_micro_usd, usage_micro_usd, missing, surplus, changed, outcome } = result;
  await db
    .prepare(
      `INSERT INTO reconciliations
         (tenant, day, ledger_micro_usd, usage_micro_usd, missing, surplus, changed, outcome, checked_at)
       VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7, ?8, ?9)
       ON CONFLICT (tenant, day) DO UPDATE SET ledger_micro_usd = ?3, usage_micro_usd = ?4, missing = ?5, surplus = ?6,
         changed = ?7, outcome = ?8, checked_at = ?9
       WHERE ?8 != 'equal' OR outcome = 'unexplained'`,
    )
    .bind(tenant, day, ledger_micro_usd, usage_micro_usd, missing, surplus, changed, outcome, Date.now())
    .run();
}
