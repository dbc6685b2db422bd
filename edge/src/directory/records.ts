import { z } from "zod";
import { type KeyRecord, Scope, Tenant } from "../auth/key-store.ts";

export const TenantStatus = z.enum(["active", "suspended"]);
export type TenantStatus = z.infer<typeof TenantStatus>;

/** A tenant as it is kept. Times are milliseconds since the epoch, money micro-USD. */
export interface TenantRecord {
  name: string;
  plan: string;
  status: TenantStatus;
  /** In place of the plan's. */
  monthlyBudget: number | null;
  createdAt: number;
}

/** A key as it is kept: everything but the secret. */
export interface KeyEntry {
  id: string;
  tenant: string;
  secretSha256: string;
  last4: string;
  label: string | null;
  scopes: Scope[];
  createdAt: number;
  expiresAt: number | null;
  revokedAt: number | null;
}

const seconds = z.int().min(0);

export const TenantDescription = z
  .object({
    id: Tenant,
    object: z.literal("tenant"),
    plan: z.string(),
    status: TenantStatus,
    monthly_budget_micro_usd: z
      .int()
      .min(0)
      .nullable()
      .meta({ description: "In place of the plan's; null: the plan's." }),
    created_at: seconds,
  })
  .meta({ description: "A customer." });
export type TenantDescription = z.infer<typeof TenantDescription>;

export const KeyDescription = z
  .object({
    id: z.string().meta({ description: "Public id: the middle of the key." }),
    object: z.literal("api_key"),
    tenant: Tenant,
    label: z.string().nullable(),
    scopes: z.array(Scope),
    last4: z.string(),
    status: z.enum(["active", "expired", "revoked"]),
    created_at: seconds,
    expires_at: seconds.nullable(),
    revoked_at: seconds.nullable(),
  })
  .meta({ description: "An API key without its secret." });
export type KeyDescription = z.infer<typeof KeyDescription>;

export const AuditDescription = z
  .object({
    id: z.string(),
    object: z.literal("audit_entry"),
    actor: z.string(),
    action: z.enum(["tenant.create", "tenant.change", "key.create", "key.change", "key.revoke", "key.rotate"]),
    tenant: z.string(),
    target: z.string().meta({ description: "The tenant's name or the key's id." }),
    before: z.union([TenantDescription, KeyDescription]).nullable(),
    after: z.union([TenantDescription, KeyDescription]),
    request_id: z.string(),
    at: seconds,
  })
  .meta({ description: "One change: who did what, and how the target was before and after." });
export type AuditDescription = z.infer<typeof AuditDescription>;

export function describeTenant({ name, plan, status, monthlyBudget, createdAt }: TenantRecord): TenantDescription {
  return {
    id: name,
    object: "tenant",
    plan,
    status,
    monthly_budget_micro_usd: monthlyBudget,
    created_at: inSeconds(createdAt),
  };
}

/** @param now milliseconds: decides whether the key has expired */
export function describeKey(key: KeyEntry, now: number): KeyDescription {
  return {
    id: key.id,
    object: "api_key",
    tenant: key.tenant,
    label: key.label,
    scopes: key.scopes,
    last4: key.last4,
    status: statusOf(key, now),
    created_at: inSeconds(key.createdAt),
    expires_at: key.expiresAt === null ? null : inSeconds(key.expiresAt),
    revoked_at: key.revokedAt === null ? null : inSeconds(key.revokedAt),
  };
}

/** What the path of requests needs of a key. */
export function kvRecordOf(key: KeyEntry, { plan, monthlyBudget }: TenantRecord): KeyRecord {
  return {
    tenant: key.tenant,
    plan,
    monthly_budget: monthlyBudget,
    secret_sha256: key.secretSha256,
    scopes: key.scopes,
    expires_at: key.expiresAt,
  };
}

function statusOf({ revokedAt, expiresAt }: KeyEntry, now: number): KeyDescription["status"] {
  if (revokedAt !== null) return "revoked";
  return expiresAt !== null && expiresAt <= now ? "expired" : "active";
}

function inSeconds(ms: number): number {
  return Math.floor(ms / 1000);
}
