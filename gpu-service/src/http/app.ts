import { randomUUID } from "node:crypto";
import { ApiError, REQUEST_ID_HEADER } from "@fathom/shared";
import { type Context, Hono, type MiddlewareHandler } from "hono";
import type { Logger } from "pino";
import type { ServedModel } from "../text/served-model.ts";
import { answer, type Outcome } from "./answer.ts";
import { type AnswerFormat, chatFormat, completionFormat } from "./answer-format.ts";
import type { Authenticate, Caller } from "./caller.ts";
import { describeModel } from "./describe-model.ts";
import { errorResponse, toApiError } from "./errors.ts";
import { requireLoopbackHost } from "./loopback.ts";
import { answersTo } from "./model-name.ts";
import { limitBody, readJson } from "./read-json.ts";
import { type ResolvedRequest, resolveChat, resolveCompletion } from "./resolve-request.ts";
import type { Service } from "./service.ts";

export interface AppOptions {
  service: Service;
  authenticate: Authenticate;
  /** Answer only requests that name a loopback host: without a key, a web page must not reach the service by DNS rebinding. */
  loopbackOnly: boolean;
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

const HEALTH_PATHS = new Set(["/healthz", "/readyz"]);
const SSE_HEADERS = {
  "content-type": "text/event-stream; charset=utf-8",
  "cache-control": "no-cache",
  // Proxies in the manner of nginx would collect the stream otherwise.
  "x-accel-buffering": "no",
};
const REQUEST_ID = /^[A-Za-z0-9._:-]{1,128}$/;

/** The GPU service's HTTP interface: OpenAI's, with the depth dial. */
export function createApp({ service, authenticate, loopbackOnly, logger }: AppOptions): App {
  const app: App = new Hono();
  app.use(identify(service, logger));
  if (loopbackOnly) app.use(requireLoopbackHost);

  route(app, "get", "/healthz", (c) => c.json({ status: "ok", load: service.load() }));
  route(app, "get", "/readyz", (c) => c.json({ status: service.phase }, service.phase === "ready" ? 200 : 503));

  app.use(async (c, next) => {
    c.set("caller", await authenticate(c.req.raw.headers));
    await next();
  });
  route(app, "get", "/v1/models", (c) => c.json({ object: "list", data: [describeModel(service.model())] }));
  route(app, "get", "/v1/models/:id", (c) => {
    const id = c.req.param("id") ?? "";
    const model = service.model();
    if (answersTo(model, id)) return c.json(describeModel(model));
    throw new ApiError("model_not_found", `There is no model '${id}'.`, { param: "model" });
  });
  app.use(limitBody);
  route(app, "post", "/v1/chat/completions", generation(service, chatFormat, resolveChat));
  route(app, "post", "/v1/completions", generation(service, completionFormat, resolveCompletion));

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

/** Gives the request its id, and the log its line once the answer is complete. */
function identify(service: Service, logger: Logger): MiddlewareHandler<{ Variables: Variables }> {
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
    const level = HEALTH_PATHS.has(c.req.path) ? "debug" : "info";
    const log = (outcome: Outcome | undefined): void => {
      const ms = Math.round(performance.now() - started);
      const thrown = outcome && "error" in outcome ? outcome.error : c.error;
      const error = thrown === undefined ? undefined : toApiError(thrown).code;
      logger[level]({ ...line, ms, error, ...accountFields(outcome) }, "request");
      if (error === "internal_error") logger.error({ requestId, err: thrown }, "failed");
    };
    const pending = c.get("outcome");
    if (pending) void pending.then(log);
    else log(undefined);
  };
}

function generation(service: Service, format: AnswerFormat, resolve: Resolve): (c: AppContext) => Promise<Response> {
  return async (c) => {
    // Checked before the body is read, and again after: draining may have begun in the meantime.
    service.openModel();
    const request = await resolve(await readJson(c.req), service.openModel(), c.get("caller"));
    const model = service.openModel();
    const outcome = Promise.withResolvers<Outcome>();
    c.set("outcome", outcome.promise);
    const live = service.begin(c.get("client"));
    const result = await answer({ model, request, format, live, onEnd: outcome.resolve });
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
    promptTokens: usage.prompt_tokens,
    completionTokens: usage.completion_tokens,
    layerTokens: fathom.cost.layer_tokens,
    timeToFirstTokenMs: fathom.timing.time_to_first_token_ms,
    tokensPerSecond: fathom.timing.tokens_per_second,
  };
}
