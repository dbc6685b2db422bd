import { createExecutionContext, createMessageBatch, getQueueResult } from "cloudflare:test";
import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { HOLDER, METERED } from "../ledger/testing.ts";
import { dayOf } from "../ledger/windows.ts";
import { eventually } from "../testing/edge.ts";
import { consume } from "./consume.ts";
import { reconcile } from "./reconcile.ts";
import { signWebhook } from "./sign-webhook.ts";
import { webhookUrlProblem } from "./webhook-url.ts";

const rowsOf = async (tenant: string) =>
  (await env.USAGE.prepare("SELECT * FROM usage WHERE tenant = ? ORDER BY request_id").bind(tenant).all()).results;

/** Three charged answers of a new tenant, in the table. */
async function charged() {
  const tenant = crypto.randomUUID();
  const ledger = env.LEDGER.getByName(tenant);
  for (const id of ["a", "b", "c"].map((letter) => `${letter}-${tenant}`)) {
    await ledger.reserve({
      id,
      holder: { ...HOLDER, tenant, ledger: tenant },
      offers: [{ depth: 12, reason: "plan", cost: 100, keep: 0 }],
      limits: { requestsPerMinute: 100, concurrency: 100, monthlyBudget: 1000 },
      leaseMs: 60_000,
    });
    await ledger.settle(id, 40, METERED);
  }
  const day = dayOf(Date.now());
  const rows = await eventually(
    async () => await rowsOf(tenant).catch(() => []),
    (found) => found.length === 3,
  );
  expect(rows).toEqual(await ledger.copies(day, ""));
  return { tenant, day, rows, ledger };
}

test("a lost, a doubled and an altered row are found and repaired; a day that is equal is left", async () => {
  const { tenant, day, rows } = await charged();
  expect(await reconcile({ tenant, day }, env)).toMatchObject({ outcome: "equal", usage_micro_usd: 120 });
  await env.USAGE.batch([
    env.USAGE.prepare("DELETE FROM usage WHERE request_id = ?").bind(`a-${tenant}`),
    env.USAGE.prepare("UPDATE usage SET micro_usd = 7 WHERE request_id = ?").bind(`b-${tenant}`),
    env.USAGE.prepare(
      `INSERT INTO usage SELECT 'z-' || request_id, tenant, ledger, key_id, plan, model, service, depth, exit, reason,
         prompt_tokens, completion_tokens, layer_tokens, micro_usd, day, started_at, settled_at, status
       FROM usage WHERE request_id = ?`,
    ).bind(`c-${tenant}`),
  ]);
  expect(await reconcile({ tenant, day }, env)).toMatchObject({
    outcome: "repaired",
    missing: 1,
    changed: 1,
    surplus: 1,
    ledger_micro_usd: 120,
    usage_micro_usd: 87,
  });
  expect(await rowsOf(tenant)).toEqual(rows);
});

test("a row that comes twice is stored once", async () => {
  const { tenant, rows } = await charged();
  const messages = rows.map((body, i) => ({ id: `${i}`, timestamp: new Date(), attempts: 1, body }));
  const batch = createMessageBatch("fathom-usage", messages);
  await consume(batch, env);
  expect((await getQueueResult(batch, createExecutionContext())).ackAll).toBe(true);
  expect(await rowsOf(tenant)).toEqual(rows);
});

test("signs as the Standard Webhooks specification's own example", async () => {
  const secret = "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw";
  const signature = await signWebhook(secret, "msg_p5jXN8AQM9LWM0D4loKWxJek", 1614265330, '{"test": 2432232314}');
  expect(signature).toBe("v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=");
});

test.each([
  "http://example.com/",
  "https://user:secret@example.com/",
  "https://localhost/",
  "https://a.localhost./",
  "https://metadata.google.internal/",
  "https://intranet/",
  "https://127.0.0.1/",
  "https://0x7f.1/",
  "https://2130706433/",
  "https://10.1.2.3/",
  "https://169.254.169.254/",
  "https://100.64.0.1/",
  "https://[::1]/",
  "https://[::ffff:10.0.0.1]/",
  "https://[fe80::1]/",
  "https://[fd00::1]/",
  "ftp://example.com/",
  "nonsense",
])("does not send events to %s", (url) => {
  expect(webhookUrlProblem(url, false)).toBeDefined();
});

test("sends them to public hosts, and to this machine where that is permitted", () => {
  expect(webhookUrlProblem("https://billing.example.com/hook?x=1", false)).toBeUndefined();
  expect(webhookUrlProblem("http://127.0.0.1:9000/", true)).toBeUndefined();
  expect(webhookUrlProblem("http://10.0.0.1:9000/", true)).toBeDefined();
});
