import { dayOf } from "../ledger/windows.ts";
import { ensureSchema } from "./database.ts";
import { ReconcileJob, reconcile } from "./reconcile.ts";

const DAY_MS = 86_400_000;

/** Jobs that a queue takes at once. */
const BATCH = 100;

/** Cron: has every tenant's last two days compared: yesterday, and once more the day before, should a night have failed. */
export async function startReconciliation(now: number, env: Env): Promise<void> {
  await ensureSchema(env.USAGE);
  const days = [dayOf(now - DAY_MS), dayOf(now - 2 * DAY_MS)];
  for (let after = ""; ; ) {
    const { results } = await env.USAGE.prepare(
      "SELECT DISTINCT tenant FROM ledgers WHERE tenant > ? ORDER BY tenant LIMIT ?",
    )
      .bind(after, BATCH / days.length)
      .all<{ tenant: string }>();
    const last = results.at(-1);
    if (!last) return;
    const jobs: ReconcileJob[] = results.flatMap(({ tenant }) => days.map((day) => ({ tenant, day })));
    await env.RECONCILE_QUEUE.sendBatch(jobs.map((body) => ({ body })));
    after = last.tenant;
  }
}

/** Queue consumer: one tenant's day after another. */
export async function reconcileDays(batch: MessageBatch, env: Env): Promise<void> {
  for (const message of batch.messages) {
    const job = ReconcileJob.safeParse(message.body);
    try {
      if (job.success) await reconcile(job.data, env);
      else console.error(JSON.stringify({ queue: batch.queue, message: message.id, notAJob: job.error.message }));
      message.ack();
    } catch (error) {
      console.error(JSON.stringify({ reconciliation: job.data, failed: String(error) }));
      message.retry();
    }
  }
}
