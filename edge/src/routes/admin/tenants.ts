import type { Context } from "hono";
import type { z } from "zod";
import type { AppEnv } from "../../app-env.ts";
import { Tenant } from "../../auth/key-store.ts";
import { directoryOf } from "../../directory/directory.ts";
import type { TenantChange } from "../../directory/directory-store.ts";
import { noTenant, unwrap } from "../../directory/outcome.ts";
import { listPage, listQuery } from "../../http/list-query.ts";
import { readJson } from "../../http/read-json.ts";
import type { Plans } from "../../policy/plan.ts";
import { knownPlan } from "../known-plan.ts";
import { originOf } from "./origin.ts";
import { type PlanList, TenantChangeRequest, TenantRequest, type TenantUsage } from "./schemas.ts";

/** `POST /admin/tenants`. */
export function createTenant(plans: Plans) {
  return async (c: Context<AppEnv>): Promise<Response> => {
    const { tenant: name, plan, monthly_budget_micro_usd: monthlyBudget } = await readJson(c, TenantRequest);
    knownPlan(plans, plan);
    c.var.log.add({ tenant: name, plan });
    return c.json(unwrap(await directoryOf(c.env).createTenant({ name, plan, monthlyBudget }, originOf(c))), 201);
  };
}

/** `GET /admin/tenants`: newest first. */
export async function listTenants(c: Context<AppEnv>): Promise<Response> {
  const { tenants, more } = await directoryOf(c.env).listTenants(listQuery(c, 20, 100));
  return c.json(listPage(tenants, more));
}

/** `GET /admin/tenants/:tenant`. */
export async function showTenant(c: Context<AppEnv>): Promise<Response> {
  return c.json(unwrap(await directoryOf(c.env).tenant(tenantIn(c))));
}

/** `PATCH /admin/tenants/:tenant`: plan, status and budget. Status and budget count from the next request on. */
export function changeTenant(plans: Plans) {
  return async (c: Context<AppEnv>): Promise<Response> => {
    const { plan, status, monthly_budget_micro_usd: monthlyBudget } = await readJson(c, TenantChangeRequest);
    if (plan !== undefined) knownPlan(plans, plan);
    const change: TenantChange = {
      ...(plan !== undefined && { plan }),
      ...(status !== undefined && { status }),
      ...(monthlyBudget !== undefined && { monthlyBudget }),
    };
    return c.json(unwrap(await directoryOf(c.env).changeTenant(tenantIn(c), change, originOf(c))));
  };
}

/** `GET /admin/tenants/:tenant/usage`: this month, from the ledger. */
export function showTenantUsage(plans: Plans) {
  return async (c: Context<AppEnv>): Promise<Response> => {
    const tenant = unwrap(await directoryOf(c.env).tenant(tenantIn(c)));
    const { month, settled, reserved, inFlight } = await c.env.LEDGER.getByName(tenant.id).usage();
    const usage: z.infer<typeof TenantUsage> = {
      tenant: tenant.id,
      month,
      settled_micro_usd: settled,
      reserved_micro_usd: reserved,
      in_flight: inFlight,
      monthly_budget_micro_usd:
        tenant.monthly_budget_micro_usd ?? plans.get(tenant.plan)?.monthly_budget_micro_usd ?? 0,
    };
    return c.json(usage);
  };
}

/** `GET /admin/plans`: as they are configured. */
export function listPlans(plans: Plans) {
  return (c: Context<AppEnv>): Response => {
    const data = [...plans].map(([id, plan]) => ({ id, object: "plan" as const, ...plan }));
    const list: z.infer<typeof PlanList> = { object: "list", data };
    return c.json(list);
  };
}

/** The tenant in the path. @throws ApiError `not_found` for what cannot be one. */
export function tenantIn(c: Context<AppEnv>): string {
  const text = c.req.param("tenant") ?? "";
  const name = Tenant.safeParse(text);
  if (!name.success) return unwrap(noTenant(text.slice(0, 64)));
  c.var.log.add({ tenant: name.data });
  return name.data;
}
