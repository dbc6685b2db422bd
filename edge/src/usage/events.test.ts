import {
  createExecutionContext,
  createMessageBatch,
  createScheduledController,
  getQueueResult,
  runDurableObjectAlarm,
  runInDurableObject,
} from "cloudflare:test";
import { env } from "cloudflare:workers";
import { Webhook } from "standardwebhooks";
import { expect, test } from "vitest";
import worker from "../index.ts";
import { Outbox } from "../ledger/outbox.ts";
import { complete, eventually, newTenant, StubService } from "../testing/edge.ts";
import { deliverEvents, type EventMessage, retrySeconds } from "./events.ts";
import { flushOutbox } from "./flush-outbox.ts";

const EVENT: EventMessage = {
  id: "usage.daily:acme:2026-11-24",
  type: "usage.daily",
  timestamp: "2026-11-25T02:17:00Z",
  data: { tenant: "acme", micro_usd: 5 },
};

async function deliver(url: string) {
  const webhook = {
    BILLING_WEBHOOK_URL: url,
    BILLING_WEBHOOK_SECRET: "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw",
    WEBHOOKS_TO_LOCALHOST: "true",
  };
  const batch = createMessageBatch("fathom-events", [{ id: "1", timestamp: new Date(), attempts: 1, body: EVENT }]);
  await deliverEvents(batch, { ...env, ...webhook } as Env);
  return await getQueueResult(batch, createExecutionContext());
}

test("an event that is taken is done with; one that is not is sent again", async () => {
  const receiver = new StubService();
  expect((await deliver(`${receiver.url}/healthz`)).explicitAcks).toEqual(["1"]);
  await receiver.set({ status: 500 });
  const { explicitAcks, retryMessages } = await deliver(`${receiver.url}/healthz`);
  expect([explicitAcks, retryMessages.length]).toEqual([[], 1]);
});

test("waits longer every time, up to six hours", () => {
  expect([1, 2, 3, 20].map(retrySeconds)).toEqual([10, 20, 40, 21_600]);
});

/** Events about a tenant that the webhook was sent, checked by the specification's own library. */
async function told(tenant: string): Promise<{ id: string; type: string; data: Record<string, unknown> }[]> {
  const webhook = new Webhook(env.BILLING_WEBHOOK_SECRET ?? "");
  const hooks = await new StubService("billing").hooks();
  const own = hooks.filter(({ headers }) => headers["webhook-id"]?.includes(tenant));
  return own.map(({ headers, body }) => ({
    ...(webhook.verify(body, headers) as { type: string; data: Record<string, unknown> }),
    id: headers["webhook-id"] ?? "",
  }));
}

test("a month's budget that runs out is told on the way, once each, and signed", async () => {
  // One layer-token costs one micro-USD, 2000 in all; short answers leave little when the next one no longer fits.
  const tenant = await newTenant("poor");
  let status = 200;
  while (status === 200) status = (await complete(tenant, { prompt: [1, 2, 3], max_tokens: 1 })).status;
  expect(status).toBe(402);
  await complete(tenant, { prompt: [1, 2, 3], max_tokens: 1 });
  const events = await eventually(
    async () => await told(tenant.name),
    (found) => found.some(({ type }) => type === "budget.exhausted"),
  );
  const exhausted = events.filter(({ type }) => type === "budget.exhausted");
  expect(exhausted).toHaveLength(1);
  expect(exhausted[0]?.data).toMatchObject({ tenant: tenant.name, budget_micro_usd: 2000 });
  const thresholds = events.filter(({ type }) => type === "budget.threshold").map(({ data }) => data.percent);
  expect(thresholds).toEqual([80]);
  const { settled } = await tenant.usage();
  expect(settled).toBeGreaterThanOrEqual(0.8 * 2000);
  expect(settled).toBeLessThanOrEqual(2000);
});

test("the cron has every ledger's days compared, and the day is told", async () => {
  const tenant = await newTenant("exact");
  await complete(tenant, { max_tokens: 5 });
  await eventually(
    async () => await env.USAGE.prepare("SELECT 1 FROM usage WHERE tenant = ?").bind(tenant.name).first(),
    (found) => found !== null,
  );
  // As if it were the night after: today is the day to compare.
  const scheduledTime = new Date(Date.now() + 86_400_000);
  await worker.scheduled?.(createScheduledController({ scheduledTime, cron: "17 2 * * *" }), env);
  const events = await eventually(
    async () => await told(tenant.name),
    (found) => found.some(({ type }) => type === "usage.daily"),
  );
  const { settled } = await tenant.usage();
  expect(events.find(({ type }) => type === "usage.daily")?.data).toMatchObject({
    tenant: tenant.name,
    micro_usd: settled,
  });
});

test("what a queue does not take stays in the outbox, and is sent by a later alarm", async () => {
  const tenant = await newTenant("exact");
  const ledger = env.LEDGER.getByName(tenant.name);
  await complete(tenant, { max_tokens: 5 });
  const down = { sendBatch: () => Promise.reject(new Error("the queue is away")) };
  await runInDurableObject(ledger, async (_, { storage }) => {
    const outbox = new Outbox(storage.sql);
    const waiting = outbox.next(100).messages.length;
    const broken = { ...env, USAGE_QUEUE: down, EVENTS_QUEUE: down } as unknown as Env;
    if (waiting > 0) await expect(flushOutbox(outbox, storage.sql, broken)).rejects.toThrow("the queue is away");
    expect(outbox.next(100).messages).toHaveLength(waiting);
  });
  await runDurableObjectAlarm(ledger);
  const row = await eventually(
    async () => await env.USAGE.prepare("SELECT micro_usd FROM usage WHERE tenant = ?").bind(tenant.name).first(),
    (found) => found !== null,
  );
  expect(row).toEqual({ micro_usd: (await tenant.usage()).settled });
});
