import { z } from "zod";
import { settingsOf } from "../settings.ts";
import { signWebhook } from "./sign-webhook.ts";

/** What the billing webhook is told. */
export const EventMessage = z.object({
  /** The same however often it is sent: receivers tell repetitions by it. */
  id: z.string(),
  type: z.enum(["budget.threshold", "budget.exhausted", "usage.daily"]),
  /** When it came about, ISO 8601. */
  timestamp: z.string(),
  data: z.record(z.string(), z.union([z.string(), z.number()])),
});
export type EventMessage = z.infer<typeof EventMessage>;

const TIMEOUT_MS = 10_000;
const FIRST_RETRY_SECONDS = 10;
const LAST_RETRY_SECONDS = 6 * 3600;

/** Queue consumer: delivers events to the billing webhook, if there is one. What is not taken is sent again, ever later. */
export async function deliverEvents(batch: MessageBatch, env: Env): Promise<void> {
  const { webhook } = settingsOf(env);
  if (!webhook) return batch.ackAll();
  await Promise.all(
    batch.messages.map(async (message) => {
      const event = EventMessage.safeParse(message.body);
      if (!event.success) {
        console.error(JSON.stringify({ queue: batch.queue, message: message.id, notAnEvent: event.error.message }));
        return message.ack();
      }
      const problem = await deliver(event.data, webhook);
      if (problem === undefined) return message.ack();
      console.warn(JSON.stringify({ event: event.data.id, attempt: message.attempts, notDelivered: problem }));
      message.retry({ delaySeconds: retrySeconds(message.attempts) });
    }),
  );
}

/** Doubles with every attempt. */
export function retrySeconds(attempts: number): number {
  return Math.min(LAST_RETRY_SECONDS, FIRST_RETRY_SECONDS * 2 ** (attempts - 1));
}

/** @returns why it was not taken; undefined when it was. */
async function deliver(event: EventMessage, webhook: { url: string; secret: string }): Promise<string | undefined> {
  const { id, ...payload } = event;
  const body = JSON.stringify(payload);
  const timestamp = Math.floor(Date.now() / 1000);
  try {
    const response = await fetch(webhook.url, {
      method: "POST",
      headers: {
        "content-type": "application/json",
        "webhook-id": id,
        "webhook-timestamp": String(timestamp),
        "webhook-signature": await signWebhook(webhook.secret, id, timestamp, body),
      },
      body,
      // Not followed: the place it leads to was not checked.
      redirect: "manual",
      signal: AbortSignal.timeout(TIMEOUT_MS),
    });
    await response.body?.cancel();
    return response.ok ? undefined : `status ${response.status}`;
  } catch (error) {
    return String(error);
  }
}
