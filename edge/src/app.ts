import { ApiError, REQUEST_ID_HEADER } from "@fathom/shared";
import { Hono, type MiddlewareHandler } from "hono";
import { cors } from "hono/cors";
import { secureHeaders } from "hono/secure-headers";
import type { AppEnv } from "./app-env.ts";
import { respondWithError, toApiError } from "./http/errors.ts";
import { RequestLog } from "./http/request-log.ts";
import { ServerTiming } from "./http/server-timing.ts";
import type { Plans } from "./policy/plan.ts";
import { registerRoutes } from "./register-routes.ts";

/** Headers of answers that scripts of other origins may read. */
const EXPOSED_HEADERS = [
  REQUEST_ID_HEADER,
  "x-fathom-depth",
  "x-fathom-reason",
  "x-fathom-max-tokens",
  "idempotent-replayed",
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
  app.use("/openapi.json", cors({ origin: "*" }));

  registerRoutes(app, plans);
  app.notFound((c) => respondWithError(c, new ApiError("not_found", `There is nothing at ${c.req.path}.`)));
  app.onError((error, c) => respondWithError(c, toApiError(error)));
  return app;
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
