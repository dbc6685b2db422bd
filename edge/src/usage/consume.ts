import { deliverEvents } from "./events.ts";
import { reconcileDays } from "./nightly.ts";
import { storeUsage } from "./store-usage.ts";

type Consumer = (batch: MessageBatch, env: Env) => Promise<void>;

/** By the names of the queues in wrangler.jsonc. */
const CONSUMERS: ReadonlyMap<string, Consumer> = new Map([
  ["fathom-usage", storeUsage],
  ["fathom-events", deliverEvents],
  ["fathom-reconcile", reconcileDays],
]);

/** Hands a batch to the consumer of its queue. @throws Error when there is none; the batch is kept then. */
export async function consume(batch: MessageBatch, env: Env): Promise<void> {
  const consumer = CONSUMERS.get(batch.queue);
  if (!consumer) throw new Error(`nobody consumes the queue ${batch.queue}`);
  await consumer(batch, env);
}
