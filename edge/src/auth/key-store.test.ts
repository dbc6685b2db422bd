import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { parseApiKey } from "./api-key.ts";
import { findKeyHolder, issueKey } from "./key-store.ts";

const HOLDER = { tenant: "acme", plan: "pro" };

test("a key leads to whom it was issued to", async () => {
  const { id, key } = await issueKey(env.KEYS, HOLDER);
  expect(key).toMatch(/^fk_[0-9a-f]{16}_[0-9a-f]{64}$/);
  expect(parseApiKey(key)?.publicId).toBe(id);
  expect(await findKeyHolder(env.KEYS, key)).toEqual({ ...HOLDER, keyId: id });
});

test("the secret is stored nowhere", async () => {
  const { key } = await issueKey(env.KEYS, HOLDER);
  const secret = parseApiKey(key)?.secret ?? "";
  const { keys } = await env.KEYS.list();
  const stored = await Promise.all(keys.map(async ({ name }) => name + (await env.KEYS.get(name))));
  expect(stored.length).toBeGreaterThan(0);
  expect(stored.join()).not.toContain(secret);
});

test("no other text leads anywhere", async () => {
  const { key } = await issueKey(env.KEYS, HOLDER);
  const flipped = key.slice(0, -1) + (key.endsWith("0") ? "1" : "0");
  const unknown = key.replace(/^fk_[0-9a-f]{16}/, `fk_${"0".repeat(16)}`);
  for (const text of ["", "fk__", "sk-123", key.toUpperCase(), `${key}0`, ` ${key}`, flipped, unknown]) {
    expect(await findKeyHolder(env.KEYS, text)).toBeUndefined();
  }
});

test("two keys differ", async () => {
  const [a, b] = await Promise.all([issueKey(env.KEYS, HOLDER), issueKey(env.KEYS, HOLDER)]);
  expect(a.id).not.toBe(b.id);
  expect(parseApiKey(a.key)?.secret).not.toBe(parseApiKey(b.key)?.secret);
});
