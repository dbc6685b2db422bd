import { ensureSchema } from "./database.ts";
import { UsageRow } from "./usage-row.ts";

const COLUMNS = Object.keys(UsageRow.shape) as (keyof UsageRow)[];
const VALUES = `(${COLUMNS.join(", ")}) VALUES (${COLUMNS.map(() => "?").join(", ")})`;

/** Queue consumer: writes usage rows into the table. A row that came before, by its request id, is left as it is. */
export async function storeUsage(batch: MessageBatch, env: Env): Promise<void> {
  await ensureSchema(env.USAGE);
  const rows = batch.messages.flatMap(({ id, body }) => {
    const row = UsageRow.safeParse(body);
    if (!row.success)
      console.error(JSON.stringify({ queue: batch.queue, message: id, notAUsageRow: row.error.message }));
    return row.success ? [row.data] : [];
  });
  if (rows.length > 0) await env.USAGE.batch(rows.map((row) => insertUsage(env.USAGE, row, "IGNORE")));
  batch.ackAll();
}

/** @param existing what becomes of a row with the same request id: it stays, or is replaced */
export function insertUsage(db: D1Database, row: UsageRow, existing: "IGNORE" | "REPLACE"): D1PreparedStatement {
  const statement = db.prepare(`INSERT OR ${existing} INTO usage ${VALUES}`);
  return statement.bind(...COLUMNS.map((column) => row[column]));
}
