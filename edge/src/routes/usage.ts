import { fromZodError } from "@fathom/shared";
import type { Context } from "hono";
import { z } from "zod";
import type { AppEnv } from "../app-env.ts";
import { Tenant } from "../auth/key-store.ts";
import { csvOf, ReportQuery, totalOf, type UsageReport, usageLines } from "../usage/usage-report.ts";

/** `GET /v1/usage`: what the key's tenant has used, by day, key and depth. */
export async function showUsage(c: Context<AppEnv>): Promise<Response> {
  return await report(c, c.var.customer.tenant);
}

/** `GET /admin/usage?tenant=`: the same of any tenant. */
export async function showTenantUsage(c: Context<AppEnv>): Promise<Response> {
  const { tenant } = parse(z.object({ tenant: Tenant }), c.req.query());
  return await report(c, tenant);
}

async function report(c: Context<AppEnv>, tenant: string): Promise<Response> {
  const query = parse(ReportQuery, c.req.query());
  const lines = await usageLines(c.env.USAGE, tenant, query);
  const { from, to } = query;
  if (query.format === "csv") {
    c.header("content-disposition", `attachment; filename="usage-${from}-${to}.csv"`);
    return c.body(csvOf(lines), 200, { "content-type": "text/csv; charset=utf-8" });
  }
  const answer: UsageReport = { object: "usage", tenant, from, to, data: lines, total: totalOf(lines) };
  return c.json(answer);
}

/** @throws ApiError `invalid_request` that names the first offending field. */
function parse<T>(schema: z.ZodType<T>, query: unknown): T {
  const result = schema.safeParse(query);
  if (!result.success) throw fromZodError(result.error);
  return result.data;
}
