import { randomUUID } from "node:crypto";
import { ApiError, REQUEST_ID_HEADER } from "@fathom/shared";
import { type Context, Hono, type MiddlewareHandler } from "hono";
import type { Logger } from "pino";
import type { ServiceMetrics } from "../metrics/service-metrics.ts";
import type { ServedModel } from "../text/served-model.ts";
import { answer, type Outcome } from "./answer.ts";
import { type AnswerFormat, chatFormat, completionFormat } from "./answer-format.ts";
import { requireBoundBody } from "./bound-body.ts";
import type { Authenticate, Caller } from "./caller.ts";
import { describeModel } from "./describe-model.ts";
import { errorResponse, toApiError } from "./errors.ts";
import { requireLoopbackHost } from "./loopback.ts";
import { answersTo } from "./model-name.ts";
import { limitBody, readJson } from "./read-json.ts";
import { requestTimeout } from "./request-limits.ts";
import { type ResolvedRequest, resolveChat, resolveCompletion } from "./resolve-request.ts";
import type { Service } from "./service.ts";

export interface AppOptions {
  service: Service;
  metrics: ServiceMetrics;
  authenticate: Authenticate;
  /** Answer only requests that name a loopback host: without a key, a web page must not reach the service by DNS rebinding. */
  loopbackOnly: boolean;
  /** Longest time for one answer, milliseconds. */
  requestTimeoutMs: number;
  logger: Logger;
}

interface Variables {
  requestId: string;
  /** Aborted when the client goes away. */
  client: AbortSignal;
  caller: Caller;
  /** How the answer ended, for requests that generate; a stream ends after its handler. */
  outcome: Promise<Outcome> | undefined;
}

type AppContext = Context<{ Variables: Variables }>;
type App = Hono<{ Variables: Variables }>;
type Resolve = (body: unknown, model: ServedModel, caller: Caller) => Promise<ResolvedRequest>;

const WATCHED_PATHS = new Set(["/healthz", "/readyz", "/metrics"]);
const SSE_HEADERS = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache",
  // Proxies in the manner of nginx would collect the stream otherwise.
  "x-accel-buffering": "no",
};
const REQUEST_ID = /^[A-Za-z0-9._:-]{1,128}$/;

/** The GPU service's HTTP interface: OpenAI's, with the depth dial. */
export function createApp(options: AppOptions): App {
  const { service, metrics, authenticate, loopbackOnly, logger } = options;
  const app: App = new Hono();
  app.use(identify(options));
  if (loopbackOnly) app.use(requireLoopbackHost);

  route(app, "get", "/healthz", (c) => c.json({ status: "ok", load: service.load() }));
  route(app, "get", "/readyz", (c) => c.json({ status: service.phase }, service.phase === "ready" ? 200 : 503));
  route(app, "get", "/metrics", async (c) =>
    c.body(await metrics.text(), 200, { "content-type": metrics.contentType }),
  );

  app.use(async (c, next) => {
    const caller = await authenticate(c.req.raw.headers).catch((error: unknown) => {
      // Why a token of the edge is refused (a clock, a replay) is for whoever runs the service.
      const { message: reason } = toApiError(error);
      logger.warn({ requestId: c.get("requestId"), reason }, "not authorised");
      throw error;
    });
    c.set("caller", caller);
    await next();
  });
  app.use(limitBody, requireBoundBody);
  route(app, "get", "/v1/models", (c) => c.json({ object: "list", data: [describeModel(service.model())] }));
  route(app, "get", "/v1/models/:id", (c) => {
    const id = c.req.param("id") ?? "";
    const model = service.model();
    if (answersTo(model, id)) return c.json(describeModel(model));
    throw new ApiError("model_not_found", `There is no model '${id}'.`, { param: "model" });
  });
  route(app, "post", "/v1/chat/completions", generation(options, chatFormat, resolveChat));
  route(app, "post", "/v1/completions", generation(options, completionFormat, resolveCompletion));

  app.notFound((c) => errorResponse(new ApiError("not_found", `There is nothing at ${c.req.path}.`)));
  app.onError((error) => errorResponse(toApiError(error)));
  return app;
}

/** Registers a handler for one method; the others are answered with 405. */
function route(
  app: App,
  method: "get" | "post",
  path: string,
  handler: (c: AppContext) => Response | Promise<Response>,
) {
  app.on(method.toUpperCase(), path, handler);
  app.all(path, () => {
    const error = new ApiError("method_not_allowed", `Use ${method.toUpperCase()} here.`);
    return errorResponse(error, { allow: method === "get" ? "GET, HEAD" : "POST" });
  });
}

/** Gives the request its id, and the log and the metrics their share once the answer is complete. */
function identify({ service, metrics, logger }: AppOptions): MiddlewareHandler<{ Variables: Variables }> {
  return async (c, next) => {
    const started = performance.now();
    const given = c.req.header(REQUEST_ID_HEADER);
    const requestId = given !== undefined && REQUEST_ID.test(given) ? given : randomUUID();
    c.set("requestId", requestId);
    // Taken here, before anything reads the body and replaces the request.
    c.set("client", c.req.raw.signal);
    await next();
    c.header(REQUEST_ID_HEADER, requestId);
    if (service.phase === "draining") c.header("connection", "close");
    const line = { requestId, method: c.req.method, path: c.req.path, status: c.res.status };
    const level = WATCHED_PATHS.has(c.req.path) ? "debug" : "info";
    const log = (outcome: Outcome | undefined): void => {
      const ms = Math.round(performance.now() - started);
      const thrown = outcome && "error" in outcome ? outcome.error : c.error;
      const error = thrown === undefined ? undefined : toApiError(thrown).code;
      if (error !== undefined && line.status >= 400) metrics.refused(error);
      logger[level]({ ...line, ms, error, ...accountFields(outcome) }, "request");
      if (error === "internal_error") logger.error({ requestId, err: thrown }, "failed");
    };
    const pending = c.get("outcome");
    if (pending) void pending.then(log);
    else log(undefined);
  };
}

function generation(
  { service, metrics, requestTimeoutMs }: AppOptions,
  format: AnswerFormat,
  resolve: Resolve,
): (c: AppContext) => Promise<Response> {
  return async (c) => {
    const timeoutMs = requestTimeout(c.req.raw.headers, requestTimeoutMs);
    // Checked before the body is read, and again after: draining may have begun in the meantime.
    service.openModel();
    const resolved = await resolve(await readJson(c.req), service.openModel(), c.get("caller"));
    const request = { ...resolved, text: { ...resolved.text, timeoutMs } };
    const model = service.openModel();
    const outcome = Promise.withResolvers<Outcome>();
    c.set("outcome", outcome.promise);
    const live = service.begin(c.get("client"));
    const onEnd = (end: Outcome): void => {
      if ("error" in end) metrics.failed(toApiError(end.error).code);
      else metrics.completed(end);
      outcome.resolve(end);
    };
    const result = await answer({ model, engine: metrics.meter(model), request, format, live, onEnd });
    if (!(result instanceof ReadableStream)) return c.json(result);
    return c.newResponse(result, 200, SSE_HEADERS);
  };
}

function accountFields(outcome: Outcome | undefined): Record<string, unknown> {
  if (!outcome || "error" in outcome) return {};
  const { finishReason, usage, fathom } = outcome;
  return {
    finishReason,
    depth: fathom.depth,
    exit: fathom.exit,
    layersMean: fathom.layers.mean,
    promptTokens: usage.prompt_tokens,
    completionTokens: usage.completion_tokens,
    layerTokens: fathom.cost.layer_tokens,
    timeToFirstTokenMs: fathom.timing.time_to_first_token_ms,
    tokensPerSecond: fathom.timing.tokens_per_second,
  };
}
