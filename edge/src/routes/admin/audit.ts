import { ApiError, fromZodError } from "@fathom/shared";
import type { Context } from "hono";
import { z } from "zod";
import type { AppEnv } from "../../app-env.ts";
import { Tenant } from "../../auth/key-store.ts";
import { directoryOf } from "../../directory/directory.ts";
import { listPage, listQuery } from "../../http/list-query.ts";

/** `GET /admin/audit`: who changed what, newest first; `tenant` asks for one tenant's changes only. */
export async function listAudit(c: Context<AppEnv>): Promise<Response> {
  const page = listQuery(c, 20, 100);
  if (page.after !== undefined && !/^\d{1,15}$/.test(page.after)) {
    throw new ApiError("invalid_request", "'after': must be the id of an entry", { param: "after" });
  }
  const query = z.object({ tenant: Tenant.optional() }).safeParse({ tenant: c.req.query("tenant") });
  if (!query.success) throw fromZodError(query.error);
  const { entries, more } = await directoryOf(c.env).audit(page, query.data.tenant);
  return c.json(listPage(entries, more));
}
