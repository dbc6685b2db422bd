import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import { setTimeout as sleep } from "node:timers/promises";
import {
  ApiError,
  ChatCompletionRequest,
  CompletionRequest,
  contentText,
  DepthReason,
  type ErrorCode,
  PRICE_HEADER,
  REASON_HEADER,
  REQUEST_ID_HEADER,
  ServiceTokenClaims,
  tokenTimeProblem,
} from "@fathom/shared";
import { verify } from "hono/jwt";
import { TEST_SERVICE_SECRET } from "./secrets.ts";
import { accountChunk, type StubQuestion, tokenChunk, wholeAnswer } from "./stub-answer.ts";

export const STUB_EXITS = [12, 18, 24, 30];
export const STUB_CONTEXT = 2048;

/** Tokens of an answer, unless `max_tokens` is smaller. */
const ANSWER_TOKENS = 5;

/** One of the services that a stub plays; its name is the first part of the path. */
interface Service {
  model: string;
  load: { running: number; waiting: number };
  /** Status of everything but the control path; 200 is well. */
  status: number;
  requests: StubRecord[];
  healthChecks: number;
  /** What a billing webhook at `/hooks` was sent. */
  hooks: { headers: Record<string, string>; body: string }[];
  /** Overrides the `user` field of every request. */
  mischief?: string;
  /** How long `/healthz` takes, milliseconds. */
  healthDelayMs?: number;
  usedTokens: Set<string>;
}

/** What a service saw of one request to generate. */
export interface StubRecord {
  requestId: string | undefined;
  path: string;
  headers: Record<string, string>;
  claims: ServiceTokenClaims;
  body: unknown;
  /** How the connection ended. */
  end: "open" | "finished" | "aborted";
}

/**
 * A GPU service's wire contract without a model: it verifies tokens, honours depth and limits, counts words as tokens, takes
 * every other token for confident at the shallowest exit, and misbehaves as the request's `user` field says:
 * `status N`, `hang`, `page`, `half`, `no account`, `endless`, `break N`, `half event N`, `error event N`, `garbage N`, `silent N`, `slow N` (milliseconds until the first byte), `redirect URL`.
 */
export async function startGpuStub(): Promise<{ url: string; stop: () => Promise<void> }> {
  const services = new Map<string, Service>();
  const server = createServer((request, response) => {
    void handle(services, request, response).catch((error: unknown) => sendError(response, error));
  });
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const address = server.address();
  if (address === null || typeof address === "string") throw new Error("the stub has no port");
  return { url: `http://127.0.0.1:${address.port}`, stop: () => stop(server) };
}

async function stop(server: Server): Promise<void> {
  const closed = new Promise((resolve) => server.close(resolve));
  server.closeAllConnections();
  await closed;
}

async function handle(services: Map<string, Service>, request: IncomingMessage, response: ServerResponse) {
  const [, name = "", ...rest] = (request.url ?? "").split("/");
  const service = services.get(name) ?? newService();
  services.set(name, service);
  const path = `/${rest.join("/")}`;
  if (path === "/control") return await control(service, request, response);
  if (path === "/hooks") service.hooks.push({ headers: headersOf(request), body: await readText(request) });
  if (service.status !== 200) return sendJson(response, service.status, { error: "told to fail" });
  if (path === "/healthz") {
    service.healthChecks++;
    if (service.healthDelayMs) await sleep(service.healthDelayMs, undefined, { ref: false });
    return sendJson(response, 200, { status: "ok", load: service.load });
  }
  if (path === "/hooks") return sendJson(response, 200, {});
  const text = await readText(request);
  const claims = await authenticate(service, request, text);
  if (path === "/v1/models") return sendJson(response, 200, { object: "list", data: [description(service.model)] });
  await generate(service, path, claims, request, text, response);
}

function newService(): Service {
  const load = { running: 0, waiting: 0 };
  return { model: "stub-30", load, status: 200, requests: [], healthChecks: 0, usedTokens: new Set(), hooks: [] };
}

/** GET says what the service saw; PUT changes what it says. */
async function control(service: Service, request: IncomingMessage, response: ServerResponse): Promise<void> {
  if (request.method === "PUT") Object.assign(service, JSON.parse(await readText(request)));
  const { requests, healthChecks, hooks } = service;
  sendJson(response, 200, { requests, healthChecks, hooks });
}

function headersOf(request: IncomingMessage): Record<string, string> {
  return Object.fromEntries(Object.entries(request.headers).map(([key, value]) => [key, String(value)]));
}

async function authenticate(service: Service, request: IncomingMessage, text: string): Promise<ServiceTokenClaims> {
  const token = /^Bearer (\S+)$/.exec(request.headers.authorization ?? "")?.[1];
  if (token === undefined) throw new ApiError("missing_api_key", "no token");
  let claims: ServiceTokenClaims;
  try {
    claims = ServiceTokenClaims.parse(await verify(token, TEST_SERVICE_SECRET, "HS256"));
  } catch (error) {
    throw new ApiError("invalid_api_key", String(error));
  }
  const problem = tokenTimeProblem(claims, Date.now() / 1000);
  if (problem !== undefined) throw new ApiError("invalid_api_key", problem);
  if (claims.body_sha256 !== createHash("sha256").update(text).digest("hex")) {
    throw new ApiError("invalid_api_key", "another body");
  }
  if (service.usedTokens.has(claims.jti)) throw new ApiError("invalid_api_key", "used before");
  service.usedTokens.add(claims.jti);
  return claims;
}

async function generate(
  service: Service,
  path: string,
  claims: ServiceTokenClaims,
  request: IncomingMessage,
  text: string,
  response: ServerResponse,
): Promise<void> {
  const chat = path === "/v1/chat/completions";
  const json: unknown = JSON.parse(text);
  const record: StubRecord = {
    requestId: header(request, REQUEST_ID_HEADER),
    path,
    headers: headersOf(request),
    claims,
    body: json,
    end: "open",
  };
  service.requests.push(record);
  response.on("close", () => {
    record.end = response.writableFinished ? "finished" : "aborted";
  });

  const body = chat ? ChatCompletionRequest.parse(json) : CompletionRequest.parse(json);
  const depth = body.fathom?.depth;
  if (typeof depth !== "number" || depth > claims.max_depth) throw new ApiError("depth_not_allowed", "too deep");
  const named = ("max_completion_tokens" in body ? body.max_completion_tokens : undefined) ?? body.max_tokens;
  const promptTokens =
    "messages" in body ? words(body.messages.map((m) => contentText(m.content)).join(" ")) : promptOf(body);
  if (promptTokens + (named ?? 1) > STUB_CONTEXT) {
    const param = named == null ? "messages" : "max_tokens";
    throw new ApiError("context_length_exceeded", `'${param}': does not fit the context`, { param });
  }
  const question: StubQuestion = {
    chat,
    model: service.model,
    depth,
    exit: body.fathom?.exit ?? "fixed",
    shallowest: body.fathom?.min_depth ?? STUB_EXITS[0] ?? 1,
    reason: DepthReason.parse(header(request, REASON_HEADER)),
    price: Number(header(request, PRICE_HEADER)),
    promptTokens,
    tokens: Math.min(named ?? ANSWER_TOKENS, ANSWER_TOKENS),
  };
  await answer(question, service.mischief ?? body.user ?? "", body.stream === true, response);
}

async function answer(question: StubQuestion, mischief: string, stream: boolean, response: ServerResponse) {
  const [, what = "", count] = /^(.*?)(?: (\d+))?$/.exec(mischief) ?? [];
  const n = count === undefined ? Number.POSITIVE_INFINITY : Number(count);
  if (what === "status") return sendError(response, new ApiError(codeOfStatus(n), "told to fail", { retryAfter: 7 }));
  if (mischief.startsWith("redirect ")) {
    return void response.writeHead(307, { location: mischief.slice("redirect ".length) }).end();
  }
  if (what === "hang") return;
  if (what === "slow") await sleep(n);
  if (what === "page") return sendText(response, "text/html", "<h1>It works!</h1>");
  if (what === "break" && !stream) return void response.socket?.destroy();
  if (what === "half") {
    const text = JSON.stringify(wholeAnswer(question));
    response.writeHead(200, { "content-type": "application/json", "content-length": text.length });
    return void response.write(text.slice(0, 50), () => response.socket?.destroy());
  }
  if (!stream) {
    return sendJson(response, 200, what === "no account" ? { object: "chat.completion" } : wholeAnswer(question));
  }
  response.writeHead(200, { "content-type": "text/event-stream; charset=utf-8" });
  for (let i = 0; what === "endless" || i < question.tokens; i++) {
    if (i === n && what !== "slow") return misbehave(what, question, response);
    if (response.destroyed) return;
    response.write(event(tokenChunk(question, i)));
    await sleep(2);
  }
  if (what !== "no account") response.write(event(accountChunk(question)));
  response.end("data: [DONE]\n\n");
}

/** What happens instead of the next token. */
function misbehave(what: string, question: StubQuestion, response: ServerResponse): void {
  switch (what) {
    case "break":
      response.socket?.destroy();
      return;
    case "half event":
      response.write(event(tokenChunk(question, 0)).slice(0, 30), () => response.socket?.destroy());
      return;
    case "error event":
      response.end(event(new ApiError("internal_error", "the service's own words").toBody()));
      return;
    case "garbage":
      response.end("data: {nonsense\n\n");
      return;
    case "silent":
      return;
    default:
      throw new Error(`the stub knows no '${what}'`);
  }
}

function promptOf({ prompt }: CompletionRequest): number {
  return typeof prompt === "string" ? words(prompt) : prompt.length;
}

function words(text: string): number {
  return text.split(/\s+/).filter((word) => word !== "").length;
}

function codeOfStatus(status: number): ErrorCode {
  const codes: Record<number, ErrorCode> = {
    400: "unsupported_exit_policy",
    401: "invalid_api_key",
    429: "overloaded",
    504: "timeout",
  };
  return codes[status] ?? (status === 503 ? "draining" : "internal_error");
}

function description(model: string): unknown {
  const exits = STUB_EXITS.map((depth) => ({ depth, parameters: depth * 1000, bytes: depth * 2000 }));
  const fathom = { layers: 30, context_length: STUB_CONTEXT, exits, bytes: 60_000, parameters: 30_000 };
  return { id: model, object: "model", created: 1_700_000_000, owned_by: "fathom", fathom };
}

function header(request: IncomingMessage, name: string): string | undefined {
  const value = request.headers[name];
  return Array.isArray(value) ? value[0] : value;
}

async function readText(request: IncomingMessage): Promise<string> {
  let text = "";
  for await (const chunk of request.setEncoding("utf8")) text += String(chunk);
  return text;
}

const event = (value: unknown): string => `data: ${JSON.stringify(value)}\n\n`;

function sendJson(response: ServerResponse, status: number, value: unknown): void {
  response.writeHead(status, { "content-type": "application/json" }).end(JSON.stringify(value));
}

function sendText(response: ServerResponse, type: string, text: string): void {
  response.writeHead(200, { "content-type": type }).end(text);
}

function sendError(response: ServerResponse, error: unknown): void {
  const shown = error instanceof ApiError ? error : new ApiError("internal_error", String(error));
  if (shown.retryAfter !== undefined) response.setHeader("retry-after", String(shown.retryAfter));
  sendJson(response, shown.status, shown.toBody());
}
