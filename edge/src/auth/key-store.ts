import { z } from "zod";
import { createApiKey, formatApiKey, matchesDigest, parseApiKey, sha256 } from "./api-key.ts";

/** A customer's name in the ledger and in logs. */
export const Tenant = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, {
  error: "must be 1 to 64 letters, digits, '.', '_' or '-'",
});

/** What a key may be used for: the API itself, and the tenant's usage. */
export const Scope = z.enum(["inference", "usage"]);
export type Scope = z.infer<typeof Scope>;
export const ALL_SCOPES: readonly Scope[] = Scope.options;

/** What KV holds of a key that may be used: everything but the secret. */
const KeyRecord = z.object({
  tenant: Tenant,
  plan: z.string(),
  /** Micro-USD per month in place of the plan's. */
  monthly_budget: z.int().min(0).nullable().default(null),
  secret_sha256: z.string().regex(/^[0-9a-f]{64}$/),
  scopes: z.array(Scope).default([...ALL_SCOPES]),
  /** Milliseconds since the epoch, or never. */
  expires_at: z.int().nullable().default(null),
});
export type KeyRecord = z.infer<typeof KeyRecord>;

/** A key that was recognised, and whom it stands for. */
export interface KnownKey extends Omit<KeyRecord, "secret_sha256"> {
  /** Public id. */
  keyId: string;
}

/** A new key with what may be kept of it. */
export interface NewKey {
  id: string;
  /** Shown once and stored nowhere. */
  key: string;
  secretSha256: string;
  /** Last characters of the key, to tell keys apart by. */
  last4: string;
}

/** Compared with when there is no record, so that an unknown id takes as long as a wrong secret. */
const NO_DIGEST = new Uint8Array(32);

export async function newKey(): Promise<NewKey> {
  const key = createApiKey();
  const digest = await sha256(key.secret);
  return { id: key.publicId, key: formatApiKey(key), secretSha256: digest.toHex(), last4: key.secret.slice(-4) };
}

export async function putKey(kv: KVNamespace, id: string, record: KeyRecord): Promise<void> {
  await kv.put(nameOf(id), JSON.stringify(record));
}

/** Forgets a key that is revoked: it is as unknown as one that never was. */
export async function dropKey(kv: KVNamespace, id: string): Promise<void> {
  await kv.delete(nameOf(id));
}

/** Whom a key belongs to, or undefined when it is not a key of ours or its time is up. @param now milliseconds */
export async function findKeyHolder(kv: KVNamespace, text: string, now: number): Promise<KnownKey | undefined> {
  const key = parseApiKey(text);
  if (!key) return undefined;
  const record = KeyRecord.nullable().parse(await kv.get(nameOf(key.publicId), "json"));
  const digest = record ? Uint8Array.fromHex(record.secret_sha256) : NO_DIGEST;
  const matches = await matchesDigest(key.secret, digest);
  if (!matches || !record || (record.expires_at !== null && record.expires_at <= now)) return undefined;
  const { secret_sha256: _, ...holder } = record;
  return { keyId: key.publicId, ...holder };
}

function nameOf(publicId: string): string {
  return `key:${publicId}`;
}
