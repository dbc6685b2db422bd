import { z } from "zod";
import { type ApiKey, createApiKey, formatApiKey, matchesDigest, parseApiKey, sha256 } from "./api-key.ts";

/** A customer's name in the ledger and in logs. */
export const Tenant = z.string().regex(/^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/, {
  error: "must be 1 to 64 letters, digits, '.', '_' or '-'",
});

/** What KV holds of a key: everything but the secret. */
const KeyRecord = z.object({
  tenant: Tenant,
  plan: z.string(),
  secret_sha256: z.string().regex(/^[0-9a-f]{64}$/),
  created: z.string(),
});

/** Whom a key stands for. */
export interface KeyHolder {
  tenant: string;
  plan: string;
}

/** A key that was recognised, by its public id. */
export interface KnownKey extends KeyHolder {
  keyId: string;
}

/** Compared with when there is no record, so that an unknown id takes as long as a wrong secret. */
const NO_DIGEST = new Uint8Array(32);

/** Makes a key and keeps its record. The key itself is returned and stored nowhere. */
export async function issueKey(kv: KVNamespace, { tenant, plan }: KeyHolder): Promise<{ id: string; key: string }> {
  const key = createApiKey();
  const record: z.infer<typeof KeyRecord> = {
    tenant,
    plan,
    secret_sha256: (await sha256(key.secret)).toHex(),
    created: new Date().toISOString(),
  };
  await kv.put(nameOf(key), JSON.stringify(record));
  return { id: key.publicId, key: formatApiKey(key) };
}

/** Whom a key belongs to, or undefined when it is not a key of ours. */
export async function findKeyHolder(kv: KVNamespace, text: string): Promise<KnownKey | undefined> {
  const key = parseApiKey(text);
  if (!key) return undefined;
  const record = KeyRecord.nullable().parse(await kv.get(nameOf(key), "json"));
  const digest = record ? Uint8Array.fromHex(record.secret_sha256) : NO_DIGEST;
  if (!(await matchesDigest(key.secret, digest)) || !record) return undefined;
  return { keyId: key.publicId, tenant: record.tenant, plan: record.plan };
}

function nameOf({ publicId }: ApiKey): string {
  return `key:${publicId}`;
}
