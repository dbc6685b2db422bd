import { readFact, writeFact } from "../ledger/facts.ts";
import type { Outbox, Outgoing } from "../ledger/outbox.ts";
import { ensureSchema } from "./database.ts";
import type { EventMessage } from "./events.ts";

/** Messages that a queue takes at once. */
const BATCH = 100;

/**
 * Sends what an outbox holds to the queues, oldest first. What was sent is deleted only then, so everything is sent at least
 * once; who receives it tells repetitions by their ids.
 */
export async function flushOutbox(outbox: Outbox, sql: SqlStorage, env: Env): Promise<void> {
  for (;;) {
    const { upTo, messages } = outbox.next(BATCH);
    if (messages.length === 0) return;
    const rows = messages.flatMap((message) => (message.kind === "usage" ? [message.row] : []));
    const events = messages.flatMap((message) => (message.kind === "budget" ? [eventOf(message)] : []));
    await list(rows[0], sql, env);
    if (rows.length > 0) await env.USAGE_QUEUE.sendBatch(rows.map((body) => ({ body })));
    if (events.length > 0) await env.EVENTS_QUEUE.sendBatch(events.map((body) => ({ body })));
    outbox.acknowledge(upTo);
  }
}

/** Ledgers cannot be enumerated: each enters itself into the list that the reconciliation goes through. */
async function list(row: { ledger: string; tenant: string } | undefined, sql: SqlStorage, env: Env): Promise<void> {
  if (!row || readFact(sql, "listed")) return;
  await ensureSchema(env.USAGE);
  await env.USAGE.prepare("INSERT OR IGNORE INTO ledgers (name, tenant) VALUES (?, ?)")
    .bind(row.ledger, row.tenant)
    .run();
  writeFact(sql, "listed", true);
}

function eventOf(message: Outgoing & { kind: "budget" }): EventMessage {
  const { id, type, tenant, month, percent, settled, budget } = message;
  const data = { tenant, month, percent, settled_micro_usd: settled, budget_micro_usd: budget };
  return { id, type, timestamp: new Date().toISOString(), data };
}
