import { ApiError, HEARTBEAT_PATH } from "@fathom/shared";
import type { Handler, Hono } from "hono";
import type { AppEnv } from "./app-env.ts";
import { requireAccess, requireAdmin, requireApiKey } from "./auth/authenticate.ts";
import { respondWithError } from "./http/errors.ts";
import { limitBody } from "./http/read-json.ts";
import type { Plans } from "./policy/plan.ts";
import { listAudit } from "./routes/admin/audit.ts";
import { changeKey, createKey, createTenantKey, listKeys, revokeKey, rotateKey, showKey } from "./routes/admin/keys.ts";
import {
  changeTenant,
  createTenant,
  listPlans,
  listTenants,
  showTenant,
  showTenantUsage,
} from "./routes/admin/tenants.ts";
import { cancelBatch, createBatch, listBatches, showBatch } from "./routes/batches.ts";
import { chatEndpoint, completionEndpoint } from "./routes/endpoint.ts";
import { explainOwnPolicy, explainPolicy } from "./routes/explain-policy.ts";
import { createFile, deleteFile, listFiles, showFile, showFileContent } from "./routes/files.ts";
import { generate } from "./routes/generate.ts";
import { heartbeat } from "./routes/heartbeat.ts";
import { listModels, showModel } from "./routes/models.ts";
import { showDocument, showReference } from "./routes/reference.ts";
import { showTenantUsage as exportTenantUsage, showUsage } from "./routes/usage.ts";

/** Registers every route of the edge. The document of `openapi/` describes the same ones, but for `/internal`, where services speak to us. */
export function registerRoutes(app: Hono<AppEnv>, plans: Plans): void {
  const apiKey = requireApiKey(plans, "inference");
  // What reserves budget is let in by the reservation itself.
  route(app, "POST", "/v1/chat/completions", apiKey, limitBody, generate(chatEndpoint));
  route(app, "POST", "/v1/completions", apiKey, limitBody, generate(completionEndpoint));

  const access = [apiKey, requireAccess];
  route(app, "GET", "/v1/models", ...access, listModels);
  route(app, "GET", "/v1/models/:id", ...access, showModel);
  route(app, "POST", "/v1/policy/explain", ...access, limitBody, explainOwnPolicy);
  routes(app, "/v1/files", { GET: [...access, listFiles], POST: [...access, createFile] });
  routes(app, "/v1/files/:id", { GET: [...access, showFile], DELETE: [...access, deleteFile] });
  route(app, "GET", "/v1/files/:id/content", ...access, showFileContent);
  routes(app, "/v1/batches", { GET: [...access, listBatches], POST: [...access, limitBody, createBatch] });
  route(app, "GET", "/v1/batches/:id", ...access, showBatch);
  route(app, "POST", "/v1/batches/:id/cancel", ...access, cancelBatch);

  route(app, "GET", "/v1/usage", requireApiKey(plans, "usage"), requireAccess, showUsage);

  registerAdminRoutes(app, plans);
  route(app, "POST", HEARTBEAT_PATH, limitBody, heartbeat);
  route(app, "GET", "/healthz", (c) => c.json({ status: "ok" }));
  route(app, "GET", "/openapi.json", showDocument);
  route(app, "GET", "/docs", showReference);
}

function registerAdminRoutes(app: Hono<AppEnv>, plans: Plans): void {
  const read = [requireAdmin];
  const write = [requireAdmin, limitBody];
  route(app, "POST", "/admin/policy/explain", ...write, explainPolicy(plans));
  route(app, "GET", "/admin/plans", ...read, listPlans(plans));
  routes(app, "/admin/tenants", { GET: [...read, listTenants], POST: [...write, createTenant(plans)] });
  routes(app, "/admin/tenants/:tenant", { GET: [...read, showTenant], PATCH: [...write, changeTenant(plans)] });
  routes(app, "/admin/tenants/:tenant/keys", { GET: [...read, listKeys], POST: [...write, createTenantKey] });
  route(app, "GET", "/admin/tenants/:tenant/usage", ...read, showTenantUsage(plans));
  route(app, "POST", "/admin/keys", ...write, createKey(plans));
  routes(app, "/admin/keys/:id", { GET: [...read, showKey], PATCH: [...write, changeKey] });
  route(app, "POST", "/admin/keys/:id/revoke", ...write, revokeKey);
  route(app, "POST", "/admin/keys/:id/rotate", ...write, rotateKey);
  route(app, "GET", "/admin/usage", ...read, exportTenantUsage);
  route(app, "GET", "/admin/audit", ...read, listAudit);
}

/** Registers the handlers of one method; the others are answered with 405. */
function route(app: Hono<AppEnv>, method: Method, path: string, ...handlers: Handler<AppEnv>[]): void {
  routes(app, path, { [method]: handlers });
}

type Method = "GET" | "POST" | "PATCH" | "DELETE";

/** Registers the handlers of several methods of a path; the others are answered with 405. */
function routes(app: Hono<AppEnv>, path: string, byMethod: Partial<Record<Method, Handler<AppEnv>[]>>): void {
  const methods = Object.entries(byMethod);
  for (const [method, handlers] of methods) app.on([method], [path], ...handlers);
  const names = methods.map(([method]) => method);
  app.all(path, (c) => {
    const allowed = names.flatMap((name) => (name === "GET" ? ["GET", "HEAD"] : [name]));
    c.header("allow", [...allowed, "OPTIONS"].join(", "));
    return respondWithError(c, new ApiError("method_not_allowed", `Use ${names.join(" or ")} here.`));
  });
}
