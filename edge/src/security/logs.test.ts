import { env } from "cloudflare:workers";
import { afterEach, beforeEach, expect, test, vi } from "vitest";
import { parseApiKey, sha256, withoutSecrets } from "../auth/api-key.ts";
import { admin, answered } from "../testing/admin.ts";
import { chatLine, createBatch, ended, jsonl, uploaded, withKey } from "../testing/batches.ts";
import { chat, complete, newTenant, post, send } from "../testing/edge.ts";

const METHODS = ["log", "info", "warn", "error", "debug"] as const;
let output: string[] = [];

beforeEach(() => {
  output = [];
  for (const method of METHODS) {
    vi.spyOn(console, method).mockImplementation((...parts: unknown[]) => {
      output.push(parts.map((part) => (part instanceof Error ? `${part.stack}` : String(part))).join(" "));
    });
  }
});
afterEach(() => vi.restoreAllMocks());

/** Fails when one of the texts was written, or when nothing was: then the test would prove nothing. */
function expectSilenceOn(secrets: readonly string[], lines: number): void {
  expect(output.length).toBeGreaterThanOrEqual(lines);
  const all = output.join("\n").toLowerCase();
  for (const secret of secrets) expect(all).not.toContain(secret.toLowerCase());
}

async function secretsOf(key: string): Promise<string[]> {
  const secret = parseApiKey(key)?.secret ?? key;
  return [key, secret, secret.slice(0, 16), (await sha256(secret)).toHex(), env.ADMIN_SECRET, env.SERVICE_SECRET];
}

const PROMPT = "marzipan-in-the-moonlight";
const messages = [{ role: "user", content: `${PROMPT} two three` }];
/** How the stub's answers begin. */
const ANSWER = "w0 w1";

test("answers, whole and streamed, and requests that are refused leave figures only", async () => {
  const tenant = await newTenant();
  for (const more of [{}, { stream: true }, { fathom: { depth: 13 } }, { model: "no-such" }, { max_tokens: -1 }]) {
    await (await chat(tenant, { messages, ...more })).text();
  }
  await (await complete(tenant, { prompt: PROMPT })).text();
  for (const body of [`{"messages": "${PROMPT}`, `"${PROMPT}"`, PROMPT]) {
    await (await send("/v1/chat/completions", post(tenant.key, {}, { body }))).text();
  }
  expectSilenceOn([PROMPT, ANSWER, ...(await secretsOf(tenant.key))], 9);
});

test("services that fail in every way leave no text either", async () => {
  const tenant = await newTenant();
  for (const user of ["status 500", "status 400", "page", "half", "no account", "break"]) {
    await (await chat(tenant, { messages, user })).text();
  }
  for (const user of ["break 2", "half event 2", "error event 2", "garbage 2", "no account"]) {
    await (await chat(tenant, { messages, user, stream: true })).text().catch(() => undefined);
  }
  expectSilenceOn([PROMPT, ANSWER, "the service's own words", ...(await secretsOf(tenant.key))], 11);
});

test("batches leave no text of their lines and results", async () => {
  const tenant = await newTenant();
  const bad = { messages: [{ role: PROMPT, content: PROMPT }] };
  const input = jsonl([
    chatLine("a", {}, { messages }),
    chatLine("b", {}, bad),
    chatLine("c", {}, { messages, user: "page" }),
  ]);
  const fileId = await uploaded(tenant, input);
  const { id } = await (await createBatch(tenant, fileId)).json<{ id: string }>();
  await ended(tenant, id);
  await uploaded(tenant, `${PROMPT}\n`);
  expectSilenceOn([PROMPT, ANSWER, ...(await secretsOf(tenant.key))], 5);
});

test("keys that are made, rotated, revoked and wrong leave no secret", async () => {
  const tenant = await newTenant();
  const made = await answered<{ id: string; key: string }>(201, admin("POST", `/tenants/${tenant.name}/keys`, {}));
  const rotated = await answered<{ key: string }>(201, admin("POST", `/keys/${made.id}/rotate`));
  const wrong = `${rotated.key.slice(0, -4)}${rotated.key.endsWith("0000") ? "1111" : "0000"}`;
  for (const key of [made.key, wrong, rotated.key, env.SERVICE_SECRET, env.ADMIN_SECRET]) {
    await (await chat({ ...tenant, key }, { messages })).text();
    await (await send("/admin/plans", { headers: { authorization: `Bearer ${key}` } })).text();
  }
  const secrets = [...(await secretsOf(made.key)), ...(await secretsOf(rotated.key)), wrong.split("_")[2] ?? ""];
  expectSilenceOn([PROMPT, ...secrets], 12);
});

test("a key that was sent in the path or the query is not written down", async () => {
  const tenant = await newTenant();
  const { key } = tenant;
  for (const path of [`/${key}`, `/v1/models/${key}`, `/v1/files/${key}?key=${key}`, `/v1/models?key=${key}`]) {
    await (await send(path, withKey(tenant))).text();
  }
  expectSilenceOn(await secretsOf(key), 4);
  expect(withoutSecrets(`/v1/${key}/x`)).toBe(`/v1/fk_${parseApiKey(key)?.publicId}_…/x`);
});
