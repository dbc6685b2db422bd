import type { Shard } from "./shard.ts";

/** What a ledger remembers of itself. */
interface Facts {
  /** Set once the ledger stands in the list that the reconciliation goes through. */
  listed: true;
  /** Set in a shard: which one it is, and the budget that it was last asked to keep. */
  shard: Shard & { monthlyBudget: number };
}

export function readFact<K extends keyof Facts>(sql: SqlStorage, name: K): Facts[K] | undefined {
  const [row] = sql.exec<{ value: string }>("SELECT value FROM facts WHERE name = ?", name).toArray();
  return row ? (JSON.parse(row.value) as Facts[K]) : undefined;
}

export function writeFact<K extends keyof Facts>(sql: SqlStorage, name: K, value: Facts[K]): void {
  const text = JSON.stringify(value);
  sql.exec(
    "INSERT OR REPLACE INTO facts (name, value) SELECT ?1, ?2 WHERE NOT EXISTS (SELECT 1 FROM facts WHERE name = ?1 AND value = ?2)",
    name,
    text,
  );
}
