import type { UsageRow } from "./usage-row.ts";

/** What must be done to a table of rows so that it equals the ledger's. */
export interface UsageDiff {
  /** In the ledger only. */
  missing: UsageRow[];
  /** In the table with other values; these are the ledger's. */
  changed: UsageRow[];
  /** Request ids of rows in the table only. */
  surplus: string[];
}

/** Compares the ledger's rows with those of the table, by request id. */
export function diffUsage(ledger: readonly UsageRow[], table: readonly UsageRow[]): UsageDiff {
  const stored = new Map(table.map((row) => [row.request_id, row]));
  const charged = new Set(ledger.map((row) => row.request_id));
  const missing: UsageRow[] = [];
  const changed: UsageRow[] = [];
  for (const row of ledger) {
    const other = stored.get(row.request_id);
    if (!other) missing.push(row);
    else if (!equal(row, other)) changed.push(row);
  }
  return { missing, changed, surplus: [...stored.keys()].filter((id) => !charged.has(id)) };
}

function equal(a: UsageRow, b: UsageRow): boolean {
  return (Object.keys(a) as (keyof UsageRow)[]).every((column) => a[column] === b[column]);
}
