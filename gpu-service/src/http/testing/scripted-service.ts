import { ErrorBody, type Manifest } from "@fathom/shared";
import pino from "pino";
import { ServiceMetrics } from "../../metrics/service-metrics.ts";
import { type Script, ScriptedEngine, scriptedManifest } from "../../text/testing/scripted-engine.ts";
import { tinyTokenizer } from "../../text/testing/tiny-tokenizer.ts";
import { TextModel } from "../../text/text-model.ts";
import { createApp } from "../app.ts";
import { allowEverybody, requireSecret } from "../caller.ts";
import { listen } from "../server.ts";
import { Service } from "../service.ts";

const tiny = tinyTokenizer();
/** The tiny tokenizer, to make and read the tokens of scripts. */
export const TINY_TEXT = TextModel.from(tiny.json, tiny.config);

export interface ScriptedServiceOptions {
  /** What the engine answers; a text is given token by token. */
  script?: Script | string;
  /** Undefined: no key, and loopback only. */
  secret?: string;
  tokenizer?: boolean;
  /** What the manifest says beyond the script's exits. */
  manifest?: Partial<Manifest>;
  /** Longest time for one answer, milliseconds. */
  requestTimeoutMs?: number;
  /** Leave the service as it is while its model loads. */
  loading?: boolean;
}

export interface ScriptedService {
  url: string;
  service: Service;
  engine: ScriptedEngine;
  /** Parsed log lines so far. */
  log: Record<string, unknown>[];
  /** Ends the server, cutting what is still open. */
  close(): Promise<void>;
}

/** Starts the HTTP interface on a free port, in front of a scripted engine. */
export async function scriptedService(options: ScriptedServiceOptions = {}): Promise<ScriptedService> {
  const script = options.script ?? "Hello there.";
  const engine = new ScriptedEngine(typeof script === "string" ? { tokens: TINY_TEXT.encode(script) } : script);
  const service = new Service();
  const log: Record<string, unknown>[] = [];
  const logger = pino({ base: null }, { write: (line: string) => log.push(JSON.parse(line)) });
  const app = createApp({
    service,
    metrics: new ServiceMetrics(() => service.loaded()),
    requestTimeoutMs: options.requestTimeoutMs ?? 60_000,
    authenticate: options.secret === undefined ? allowEverybody : await requireSecret(options.secret),
    loopbackOnly: options.secret === undefined,
    logger,
  });
  if (!options.loading) {
    service.ready({
      manifest: scriptedManifest(engine, options.manifest),
      engine,
      text: options.tokenizer === false ? undefined : TINY_TEXT,
    });
  }
  const server = await listen(app, {
    host: "127.0.0.1",
    port: 0,
    onError: (error) => logger.error(error),
  });
  return { url: server.url, service, engine, log, close: () => server.close(0) };
}

/** Posts JSON, with a content type and nothing else. */
export function post(url: string, body: unknown, init: RequestInit = {}): Promise<Response> {
  return fetch(url, {
    method: "POST",
    body: typeof body === "string" ? body : JSON.stringify(body),
    ...init,
    headers: { "content-type": "application/json", ...init.headers },
  });
}

/** The JSON values of a stream's events, and whether it ended with `[DONE]`. */
export function parseSse(text: string): { events: unknown[]; done: boolean } {
  const lines = text.split("\n\n").filter((line) => line !== "");
  const data = lines.map((line) => line.replace(/^data: /, ""));
  const done = data.at(-1) === "[DONE]";
  return { events: data.slice(0, done ? -1 : undefined).map((line) => JSON.parse(line)), done };
}

/** What a client learns of a refusal. */
export async function errorOf(response: Response): Promise<{
  status: number;
  code: string | null;
  param: string | null;
  message: string;
}> {
  const { error } = ErrorBody.parse(await response.json());
  return { status: response.status, code: error.code, param: error.param, message: error.message };
}
