import { createExecutionContext, createMessageBatch, getQueueResult } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { StubService } from "../testing/edge.ts";
import { deliverEvents, type EventMessage, retrySeconds } from "./events.ts";

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
