import { env } from "cloudflare:workers";
import { afterEach, beforeEach, expect, type MockInstance, test, vi } from "vitest";
import { findKeyHolder, newKey, putKey } from "../auth/key-store.ts";
import { edgeWith } from "../testing/edge.ts";

// The clock would say little and fail often: what is looked at is what is compared, and with what.
type Compare = typeof crypto.subtle.timingSafeEqual;
let compare: MockInstance<Compare>;
beforeEach(() => {
  compare = vi.spyOn(crypto.subtle, "timingSafeEqual");
});
afterEach(() => vi.restoreAllMocks());

const NOW = Date.now();

async function stored(expiresAt: number | null = null): Promise<{ id: string; key: string; secretSha256: string }> {
  const made = await newKey();
  await putKey(env.KEYS, made.id, {
    tenant: "acme",
    plan: "pro",
    monthly_budget: null,
    secret_sha256: made.secretSha256,
    scopes: ["inference"],
    expires_at: expiresAt,
  });
  return made;
}

const flip = (key: string, at: number) => key.slice(0, at) + (key[at] === "0" ? "1" : "0") + key.slice(at + 1);

const bytesOf = (value: ArrayBuffer | ArrayBufferView): Uint8Array =>
  value instanceof ArrayBuffer
    ? new Uint8Array(value)
    : new Uint8Array(value.buffer, value.byteOffset, value.byteLength);

/** What was compared: once, two digests of 32 bytes. */
function compared(): [Uint8Array, Uint8Array] {
  expect(compare).toHaveBeenCalledTimes(1);
  const [a, b] = (compare.mock.calls[0] ?? []).map(bytesOf);
  expect([a?.length, b?.length]).toEqual([32, 32]);
  compare.mockClear();
  return [a ?? new Uint8Array(), b ?? new Uint8Array()];
}

test("an unknown id, a wrong secret, an expired key and the right one take the same way", async () => {
  const { key } = await stored();
  const { key: expired } = await stored(NOW - 1);
  const unknown = key.replace(/^fk_.{16}/, `fk_${"0".repeat(16)}`);
  for (const text of [key, unknown, flip(key, 20), flip(key, key.length - 1), expired]) {
    const found = await findKeyHolder(env.KEYS, text, NOW);
    expect(found !== undefined).toBe(text === key);
    compared();
  }
});

test("digests are compared, never the secret: what differs says nothing of where the secret does", async () => {
  const { key, secretSha256 } = await stored();
  for (const at of [20, 40, key.length - 1]) {
    await findKeyHolder(env.KEYS, flip(key, at), NOW);
    const [given, kept] = compared();
    expect(kept.toHex()).toBe(secretSha256);
    const same = given.filter((byte, i) => byte === kept[i]).length;
    expect(same).toBeLessThan(8);
  }
});

test("no secret leads to the digest that stands in for a missing record", async () => {
  const { key } = await newKey();
  expect(await findKeyHolder(env.KEYS, key, NOW)).toBeUndefined();
  expect(compared()[1].every((byte) => byte === 0)).toBe(true);
});

test("the administrator's secret is compared the same way, whatever the length of what is sent", async () => {
  const ask = edgeWith({});
  for (const token of [
    "x",
    env.ADMIN_SECRET.slice(0, -1),
    `${env.ADMIN_SECRET}x`,
    "y".repeat(5000),
    env.ADMIN_SECRET,
  ]) {
    const response = await ask("/admin/plans", { headers: { authorization: `Bearer ${token}` } });
    expect(response.status).toBe(token === env.ADMIN_SECRET ? 200 : 401);
    compared();
  }
});
