import { env } from "cloudflare:workers";
import { expect, test } from "vitest";
import { parseApiKey } from "./api-key.ts";
import { dropKey, findKeyHolder, type KeyRecord, newKey, putKey } from "./key-store.ts";

const NOW = Date.UTC(2026, 10, 25);
const HOLDER: Omit<KeyRecord, "secret_sha256"> = {
  tenant: "acme",
  plan: "pro",
  monthly_budget: 5,
  scopes: ["inference"],
  expires_at: null,
};

async function storedKey(more: Partial<KeyRecord> = {}) {
  const { id, key, secretSha256 } = await newKey();
  await putKey(env.KEYS, id, { ...HOLDER, secret_sha256: secretSha256, ...more });
  return { id, key };
}

const find = (text: string) => findKeyHolder(env.KEYS, text, NOW);

test("a key leads to whom it was issued to", async () => {
  const { id, key } = await storedKey();
  expect(key).toMatch(/^fk_[0-9a-f]{16}_[0-9a-f]{64}$/);
  expect(parseApiKey(key)?.publicId).toBe(id);
  expect(await find(key)).toEqual({ ...HOLDER, keyId: id });
});

test("the secret is stored nowhere", async () => {
  const { key } = await storedKey();
  const secret = parseApiKey(key)?.secret ?? "";
  const { keys } = await env.KEYS.list();
  const stored = await Promise.all(keys.map(async ({ name }) => name + (await env.KEYS.get(name))));
  expect(stored.length).toBeGreaterThan(0);
  expect(stored.join()).not.toContain(secret);
});

test("no other text leads anywhere", async () => {
  const { key } = await storedKey();
  const flipped = key.slice(0, -1) + (key.endsWith("0") ? "1" : "0");
  const unknown = key.replace(/^fk_[0-9a-f]{16}/, `fk_${"0".repeat(16)}`);
  for (const text of ["", "fk__", "sk-123", key.toUpperCase(), `${key}0`, ` ${key}`, flipped, unknown]) {
    expect(await find(text)).toBeUndefined();
  }
});

test("a key ends with its time", async () => {
  const { key } = await storedKey({ expires_at: NOW });
  expect(await findKeyHolder(env.KEYS, key, NOW - 1)).toBeDefined();
  expect(await find(key)).toBeUndefined();
});

test("a key that is dropped is unknown", async () => {
  const { id, key } = await storedKey();
  await dropKey(env.KEYS, id);
  expect(await find(key)).toBeUndefined();
});

test("two keys differ", async () => {
  const [a, b] = await Promise.all([newKey(), newKey()]);
  expect(a.id).not.toBe(b.id);
  expect(parseApiKey(a.key)?.secret).not.toBe(parseApiKey(b.key)?.secret);
});
