import { createExecutionContext, createMessageBatch, getQueueResult, runInDurableObject } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { BatchIndex } from "../batch/batch-index.ts";
import { FileStore } from "../files/file-store.ts";
import { newObjectId } from "../files/object-id.ts";
import { parsePlans } from "../policy/plan.ts";
import { chatLine, ended, jsonl, linesOf, uploaded } from "../testing/batches.ts";
import { mainService, newTenant, StubService, type TestTenant } from "../testing/edge.ts";
import type { Batch } from "./batch.ts";
import { batchOf } from "./batch-of.ts";
import { BatchStore, type LineOutcome } from "./batch-store.ts";
import { consumeTickets } from "./consume.ts";
import { validateInput } from "./validate-input.ts";

const plans = parsePlans(JSON.parse(env.PLANS ?? "{}"), "PLANS");
const HOUR = 3_600_000;

/** A batch in progress whose ticket nobody has, so that the tests hold it. */
async function batchInProgress(tenant: TestTenant, lines: unknown[], planName = "exact", lifetimeMs = HOUR) {
  const inputFileId = await uploaded(tenant, jsonl(lines));
  const now = Date.now();
  const id = newObjectId("batch_", now);
  await new BatchIndex(env.FILES, tenant.name).add(id);
  const stub = batchOf(env, tenant.name, id);
  const endpoint = "/v1/chat/completions" as const;
  const holder = { tenant: tenant.name, keyId: "k", planName };
  await runInDurableObject(stub, async (_: Batch, { storage }) => {
    const store = new BatchStore(storage);
    store.create({ ...holder, id, endpoint, inputFileId, metadata: null, createdAt: now, expiresAt: now + lifetimeMs });
    const input = await new FileStore(env.FILES, tenant.name).open(inputFileId);
    if (input) await validateInput(input.body, endpoint, 100, store);
    store.move("validated", now);
    store.update({ turn: 1 });
  });
  return { id, stub };
}

/** Hands a ticket to the consumer, as the queue does. */
async function deliver(tenant: TestTenant, id: string, variables: Partial<Env> = {}) {
  const body = { tenant: tenant.name, batch: id, turn: 1 };
  const messages = createMessageBatch("fathom-batch", [{ id: "m", timestamp: new Date(), attempts: 1, body }]);
  const ctx = createExecutionContext();
  await consumeTickets(messages, { env: { ...env, ...variables } as Env, ctx, plans });
  return await getQueueResult(messages, ctx);
}

/** The worker dies when it wants to say how a line ended. */
function dyingBeforeWrite(): Partial<Env> {
  const dies = {
    finish: async (_line: number, _attempt: number, _outcome: LineOutcome) => {
      throw new Error("the worker died");
    },
  };
  const getByName = (name: string) => {
    const stub = env.BATCH.getByName(name);
    return new Proxy(stub, { get: (target, key) => (key === "finish" ? dies.finish : Reflect.get(target, key)) });
  };
  return { BATCH: { getByName } as unknown as Env["BATCH"] };
}

test("a consumer that dies between answer and write charges once, and nothing is lost", async () => {
  const tenant = await newTenant("exact");
  const { id } = await batchInProgress(tenant, [chatLine("a"), chatLine("b")]);
  const died = await deliver(tenant, id, dyingBeforeWrite());
  expect(died.retryMessages).toHaveLength(1);
  const once = await tenant.usage();
  expect(once).toMatchObject({ settled: (2 * 8 * 30) / 2, inFlight: 0 });

  expect((await deliver(tenant, id)).explicitAcks).toEqual(["m"]);
  const batch = await ended(tenant, id);
  expect(batch).toMatchObject({ status: "completed", request_counts: { total: 2, completed: 2, failed: 0 } });
  expect((await linesOf(tenant, batch.output_file_id)).map(({ custom_id }) => custom_id)).toEqual(["a", "b"]);
  expect(await tenant.usage()).toEqual(once);
});

test("a consumer that dies before the answer leaves no hold, and the line is charged when it has run", async () => {
  const tenant = await newTenant("exact");
  const { id, stub } = await batchInProgress(tenant, [chatLine("a")]);
  await stub.claim(1, 8);
  const limits = { requestsPerMinute: 9, concurrency: 9, monthlyBudget: 1e6 };
  const offers = [{ depth: 30, reason: "plan" as const, cost: 1000, keep: 0 }];
  await env.LEDGER.getByName(tenant.name).reserve(
    { id: `${id}-1-1`, offers, limits, leaseMs: HOUR },
    "0123456789abcdef",
  );
  await deliver(tenant, id);
  expect((await ended(tenant, id)).request_counts).toEqual({ total: 1, completed: 1, failed: 0 });
  expect(await tenant.usage()).toMatchObject({ settled: 120, reserved: 0, inFlight: 0 });
});

test("a ticket that is not the last one runs nothing", async () => {
  const tenant = await newTenant("exact");
  const { id, stub } = await batchInProgress(tenant, [chatLine("a")]);
  await runInDurableObject(stub, (_: Batch, { storage }) => new BatchStore(storage).update({ turn: 2 }));
  expect((await deliver(tenant, id)).explicitAcks).toEqual(["m"]);
  expect(await tenant.usage()).toMatchObject({ settled: 0 });
});

test("a ticket that could not be sent is replaced by the next alarm", async () => {
  const tenant = await newTenant("exact");
  const { id, stub } = await batchInProgress(tenant, [chatLine("a")]);
  await runInDurableObject(stub, async (batch: Batch, { storage }) => {
    // What is left when the queue does not take it: a turn that nobody has.
    new BatchStore(storage).update({ turn: 5, seenAt: 0 });
    await batch.alarm();
  });
  expect((await ended(tenant, id)).status).toBe("completed");
});

test("a loaded pool gets no lines; the ticket waits", async () => {
  const tenant = await newTenant("exact");
  const { id, stub } = await batchInProgress(tenant, [chatLine("a")]);
  const busy = await new StubService().set({ load: { running: 8, waiting: 0 } });
  await deliver(tenant, id, { UPSTREAMS: busy.url });
  expect(await busy.requests()).toHaveLength(0);
  expect(await tenant.usage()).toMatchObject({ settled: 0, reserved: 0 });
  const { turn, waits } = await runInDurableObject(stub, (_: Batch, { storage }) => {
    const batch = new BatchStore(storage).batch();
    if (!batch) throw new Error("no batch");
    return batch;
  });
  expect([turn, waits]).toEqual([2, 1]);
  // The next ticket comes through the queue itself, two seconds later, to a pool with room.
  expect((await ended(tenant, id)).status).toBe("completed");
});

test("a service that fails is tried again, and its failure is the result at last", async () => {
  const tenant = await newTenant("exact");
  const { id } = await batchInProgress(tenant, [chatLine("a", {}, { user: "page" })]);
  await deliver(tenant, id);
  const batch = await ended(tenant, id);
  expect(batch.request_counts).toEqual({ total: 1, completed: 0, failed: 1 });
  const [line] = await linesOf(tenant, batch.error_file_id);
  expect(line?.response).toMatchObject({ status_code: 502, body: { error: { code: "upstream_failed" } } });
  const tries = (await mainService.requests()).filter(({ claims }) => claims.cache_salt === tenant.name);
  expect(tries).toHaveLength(3);
  expect(await tenant.usage()).toMatchObject({ settled: 0, reserved: 0, inFlight: 0 });
});

test("when the window is over, what has run is kept and the rest says so", async () => {
  const tenant = await newTenant("exact");
  const { id, stub } = await batchInProgress(tenant, [chatLine("a"), chatLine("b")], "exact", -1);
  await stub.claim(1, 1);
  await stub.finish(1, 1, { kind: "done", ok: true, result: '{"custom_id":"a"}' });
  await runInDurableObject(stub, async (batch: Batch) => await batch.alarm());
  const batch = await ended(tenant, id);
  expect(batch).toMatchObject({ status: "expired", request_counts: { total: 2, completed: 1, failed: 1 } });
  expect(batch.expired_at).toBeGreaterThan(0);
  expect(await linesOf(tenant, batch.output_file_id)).toEqual([{ custom_id: "a" }]);
  const [late] = await linesOf(tenant, batch.error_file_id);
  expect(late).toMatchObject({ custom_id: "b", response: null, error: { code: "batch_expired" } });
  expect(await tenant.usage()).toMatchObject({ settled: 0, reserved: 0 });
});

test("cancelled while lines run: those are waited for, the others never start", async () => {
  const tenant = await newTenant("exact");
  const { id, stub } = await batchInProgress(tenant, [chatLine("a"), chatLine("b")]);
  await stub.claim(1, 1);
  expect((await stub.cancel())?.batch.status).toBe("cancelling");
  await runInDurableObject(stub, async (batch: Batch) => await batch.alarm());
  expect((await stub.describe())?.status).toBe("cancelling");
  expect(await stub.claim(1, 8)).toBeUndefined();
  await stub.finish(1, 1, { kind: "done", ok: true, result: '{"custom_id":"a"}' });
  const batch = await ended(tenant, id);
  expect(batch).toMatchObject({ status: "cancelled", request_counts: { total: 2, completed: 1, failed: 1 } });
  expect((await linesOf(tenant, batch.error_file_id))[0]?.error?.code).toBe("batch_cancelled");
});
