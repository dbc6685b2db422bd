import { ApiError, HEARTBEAT_PATH, REQUEST_ID_HEADER } from "@fathom/shared";
import { type Handler, Hono, type MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
import { secureHeaders } from "hono/secure-headers";
import type { AppEnv } from "./app-env.ts";
import { requireAdmin, requireApiKey } from "./auth/authenticate.ts";
import { respondWithError, toApiError } from "./http/errors.ts";
import { limitBody } from "./http/read-json.ts";
import { RequestLog } from "./http/request-log.ts";
import { ServerTiming } from "./http/server-timing.ts";
import type { Plans } from "./policy/plan.ts";
import { cancelBatch, createBatch, listBatches, showBatch } from "./routes/batches.ts";
import { createKey } from "./routes/create-key.ts";
import { chatEndpoint, completionEndpoint } from "./routes/endpoint.ts";
import { explainOwnPolicy, explainPolicy } from "./routes/explain-policy.ts";
import { createFile, deleteFile, listFiles, showFile, showFileContent } from "./routes/files.ts";
import { generate } from "./routes/generate.ts";
import { heartbeat } from "./routes/heartbeat.ts";
import { listModels, showModel } from "./routes/models.ts";

/** Headers of answers that scripts of other origins may read. */
const EXPOSED_HEADERS = [
  REQUEST_ID_HEADER,
  "x-fathom-depth",
  "x-fathom-reason",
  "server-timing",
  "retry-after",
  "x-ratelimit-limit-requests",
  "x-ratelimit-remaining-requests",
  "x-ratelimit-reset-requests",
];

/** The edge's HTTP interface: OpenAI's, with plans in front and the depth dial. */
export function createApp(plans: Plans): Hono<AppEnv> {
  const app = new Hono<AppEnv>();
  app.use(identify);
  app.use(secureHeaders({ crossOriginResourcePolicy: "cross-origin" }));
  // Keys travel in a header that a page must set itself, so any origin may call: there are no cookies to steal.
  app.use("/v1/*", cors({ origin: "*", exposeHeaders: EXPOSED_HEADERS, maxAge: 86_400 }));

  const apiKey = requireApiKey(plans);
  route(app, "GET", "/healthz", (c) => c.json({ status: "ok" }));
  route(app, "GET", "/v1/models", apiKey, listModels);
  route(app, "GET", "/v1/models/:id", apiKey, showModel);
  route(app, "POST", "/v1/chat/completions", apiKey, limitBody, generate(chatEndpoint));
  route(app, "POST", "/v1/completions", apiKey, limitBody, generate(completionEndpoint));
  route(app, "POST", "/v1/policy/explain", apiKey, limitBody, explainOwnPolicy);
  route(app, "POST", "/admin/policy/explain", requireAdmin, limitBody, explainPolicy(plans));
  routes(app, "/v1/files", { GET: [apiKey, listFiles], POST: [apiKey, createFile] });
  routes(app, "/v1/files/:id", { GET: [apiKey, showFile], DELETE: [apiKey, deleteFile] });
  route(app, "GET", "/v1/files/:id/content", apiKey, showFileContent);
  routes(app, "/v1/batches", { GET: [apiKey, listBatches], POST: [apiKey, limitBody, createBatch] });
  route(app, "GET", "/v1/batches/:id", apiKey, showBatch);
  route(app, "POST", "/v1/batches/:id/cancel", apiKey, cancelBatch);
  route(app, "POST", HEARTBEAT_PATH, limitBody, heartbeat);
  route(app, "POST", "/admin/keys", requireAdmin, limitBody, createKey(plans));

  app.notFound((c) => respondWithError(c, new ApiError("not_found", `There is nothing at ${c.req.path}.`)));
  app.onError((error, c) => respondWithError(c, toApiError(error)));
  return app;
}

/** Registers the handlers of one method; the others are answered with 405. */
function route(app: Hono<AppEnv>, method: Method, path: string, ...handlers: Handler<AppEnv>[]): void {
  routes(app, path, { [method]: handlers });
}

type Method = "GET" | "POST" | "DELETE";

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

/** Gives the request an id of our own (a client's could be another's), and the log its line. */
const identify: MiddlewareHandler<AppEnv> = async (c, next) => {
  const requestId = crypto.randomUUID();
  const log = new RequestLog(requestId, c.req.method, c.req.path);
  c.set("requestId", requestId);
  c.set("log", log);
  c.set("timing", new ServerTiming());
  c.set("priorityClass", "interactive");
  // Taken here: reading the body may replace the request.
  c.set("client", c.req.raw.signal);
  c.header(REQUEST_ID_HEADER, requestId);
  c.header("cache-control", "no-store");
  await next();
  if (log.deferred) return;
  log.add({ status: c.res.status });
  log.write();
};
