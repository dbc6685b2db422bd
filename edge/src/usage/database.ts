import schema from "../../migrations/0001_usage.sql";

const ready = new WeakMap<D1Database, Promise<unknown>>();

/**
 * Creates the tables where they are missing, once per isolate: a database that nobody has migrated, as under `wrangler dev`,
 * works at once.
 */
export async function ensureSchema(db: D1Database): Promise<void> {
  let made = ready.get(db);
  if (!made) {
    made = db.batch(statementsOf(schema).map((text) => db.prepare(text)));
    ready.set(db, made);
    made.catch(() => ready.delete(db));
  }
  await made;
}

function statementsOf(sql: string): string[] {
  return sql
    .replaceAll(/--.*$/gm, "")
    .split(";")
    .map((text) => text.trim())
    .filter((text) => text !== "");
}
