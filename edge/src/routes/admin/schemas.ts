import { z } from "zod";
import { ALL_SCOPES, Scope, Tenant } from "../../auth/key-store.ts";
import { AuditDescription, KeyDescription, TenantDescription, TenantStatus } from "../../directory/records.ts";
import { Plan } from "../../policy/plan.ts";

const PlanName = z.string().meta({ description: "Name of a plan: see `GET /admin/plans`." });

const Budget = z
  .int()
  .min(0)
  .max(Number.MAX_SAFE_INTEGER)
  .nullable()
  .meta({ description: "Micro-USD per calendar month in place of the plan's; null: the plan's." });

const Label = z.string().min(1).max(128).nullable();

const Scopes = z
  .array(Scope)
  .min(1, { error: "must hold at least one scope" })
  .refine((scopes) => new Set(scopes).size === scopes.length, { error: "must not hold a scope twice" });

const ExpiresAt = z
  .int()
  .min(0)
  .max(100_000_000_000)
  .refine((seconds) => seconds * 1000 > Date.now(), { error: "must be in the future (seconds since 1970)" })
  .nullable()
  .meta({ description: "Seconds since 1970; null: never." });

export const TenantRequest = z.strictObject({
  tenant: Tenant,
  plan: PlanName,
  monthly_budget_micro_usd: Budget.default(null),
});

export const TenantChangeRequest = z
  .strictObject({
    plan: PlanName.optional(),
    status: TenantStatus.optional(),
    monthly_budget_micro_usd: Budget.optional(),
  })
  .refine(hasFields, { error: "must change something" });

const keyFields = {
  label: Label.default(null),
  scopes: Scopes.default([...ALL_SCOPES]),
  expires_at: ExpiresAt.default(null),
};

/** Of `POST /admin/tenants/:tenant/keys`. */
export const TenantKeyRequest = z.strictObject(keyFields);
export type TenantKeyRequest = z.infer<typeof TenantKeyRequest>;

/** Of `POST /admin/keys`. */
export const KeyRequest = z.strictObject({ tenant: Tenant, plan: PlanName, ...keyFields });

export const KeyChangeRequest = z
  .strictObject({ label: Label.optional(), scopes: Scopes.optional(), expires_at: ExpiresAt.optional() })
  .refine(hasFields, { error: "must change something" });

export const RotateRequest = z.strictObject({
  overlap_seconds: z
    .int()
    .min(0)
    .max(7 * 86_400)
    .default(0)
    .meta({ description: "How long the old key may still be used; 0 revokes it." }),
});

const Secret = z.string().meta({ description: "The key itself. Shown here only." });

/** Answer of `POST /admin/keys`, as it has always been. */
export const CreatedKey = z.object({ id: z.string(), key: Secret, tenant: Tenant, plan: z.string() });

export const NewKeyDescription = KeyDescription.extend({ key: Secret }).meta({
  description: "An API key with its secret.",
});

export const RotatedKey = NewKeyDescription.extend({ replaces: KeyDescription }).meta({
  description: "The new key, and what became of the old one.",
});

export const TenantUsage = z
  .object({
    tenant: Tenant,
    month: z.string().meta({ description: "UTC: `2026-11`." }),
    settled_micro_usd: z.int().min(0),
    reserved_micro_usd: z.int().min(0).meta({ description: "Held by requests in flight." }),
    in_flight: z.int().min(0),
    monthly_budget_micro_usd: z.int().min(0),
  })
  .meta({ description: "A tenant's account as its ledger has it now." });

export const PlanList = z.object({
  object: z.literal("list"),
  data: z.array(Plan.extend({ id: z.string(), object: z.literal("plan") })),
});

export const TenantList = page(TenantDescription);
export const KeyList = page(KeyDescription);
export const AuditList = page(AuditDescription);

/** A page as OpenAI's lists have it. */
export function page<T extends z.ZodType>(item: T) {
  return z.object({
    object: z.literal("list"),
    data: z.array(item),
    first_id: z.string().nullable(),
    last_id: z.string().nullable(),
    has_more: z.boolean(),
  });
}

function hasFields(value: object): boolean {
  return Object.keys(value).length > 0;
}
