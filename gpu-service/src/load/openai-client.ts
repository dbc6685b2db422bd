import { Agent as HttpAgent, request as httpRequest, type IncomingMessage } from "node:http";
import { Agent as HttpsAgent, request as httpsRequest } from "node:https";
import { z } from "zod";
import { AnswerReader, type AnswerReading, type Failure, readError } from "./answer-reader.ts";

/** Bytes of an error's body that are looked at. */
const MAX_ERROR_BYTES = 64 * 1024;
/**
 * Idle connections are closed after this time, milliseconds: sooner than servers do it (uvicorn, and so vLLM, after 5 s), or
 * a request could meet the closing and count as a failure. There is no retry that would hide real ones.
 */
const IDLE_MS = 4000;
const TIMEOUT: Failure = { code: "timeout", message: "the answer took longer than --timeout" };
const INTERRUPTED: Failure = { code: "interrupted", message: "the run was interrupted" };
const Models = z.object({ data: z.array(z.object({ id: z.string() })).min(1) });

export interface ClientOptions {
  /** Where the server is, with `/v1` or without. */
  url: string;
  /** Sent as a bearer token. */
  key: string | undefined;
  /** Longest a request may take, milliseconds. */
  timeoutMs: number;
}

/** How one request went. Times are of `performance.now()`, milliseconds. */
export interface Exchange {
  sentAt: number;
  endedAt: number;
  /** Null where no answer came. */
  status: number | null;
  /** Undefined where the answer is whole. */
  failure: Failure | undefined;
  /** What was streamed; undefined where nothing was. */
  reading: AnswerReading | undefined;
}

/** A server that speaks OpenAI's API. Connections are kept, and there are as many as there are requests in flight. */
export class OpenAiClient {
  readonly #base: URL;
  readonly #agent: HttpAgent | HttpsAgent;
  readonly #options: ClientOptions;

  constructor(options: ClientOptions) {
    this.#base = new URL(`${options.url.replace(/\/+$/, "").replace(/\/v1$/, "")}/v1/`);
    this.#agent = new (this.#base.protocol === "https:" ? HttpsAgent : HttpAgent)({
      keepAlive: true,
      timeout: IDLE_MS,
    });
    this.#options = options;
  }

  /** The URL of a path below `/v1/`. */
  resolve(path: string): URL {
    return new URL(path, this.#base);
  }

  /**
   * The first model that the server lists.
   * @throws Error that says why there is none.
   */
  async firstModel(signal: AbortSignal): Promise<string> {
    const url = this.resolve("models");
    const response = await fetch(url, {
      headers: this.#headers(),
      signal: AbortSignal.any([signal, AbortSignal.timeout(this.#options.timeoutMs)]),
    }).catch((error: Error) => {
      throw new Error(`${url}: ${error.cause instanceof Error ? error.cause.message : error.message}`, {
        cause: error,
      });
    });
    const models = Models.safeParse(await response.json().catch(() => undefined));
    if (!response.ok || !models.success) throw new Error(`${url}: status ${response.status}, and no list of models`);
    return models.data.data[0]?.id ?? "";
  }

  /** Posts a body and reads the stream that answers it. Never rejects: what goes wrong is part of the exchange. */
  async stream(path: string, body: object, signal: AbortSignal): Promise<Exchange> {
    const bytes = Buffer.from(JSON.stringify(body));
    const limit = new AbortController();
    const onAbort = () => limit.abort(INTERRUPTED);
    if (signal.aborted) onAbort();
    // Not AbortSignal.any: Node keeps a combined signal, and its timeout, long after the request.
    signal.addEventListener("abort", onAbort, { once: true });
    const timer = setTimeout(() => limit.abort(TIMEOUT), this.#options.timeoutMs);
    const sentAt = performance.now();
    const exchange: Exchange = { sentAt, endedAt: sentAt, status: null, failure: undefined, reading: undefined };
    try {
      const response = await this.#post(this.resolve(path), bytes, limit.signal);
      exchange.status = response.statusCode ?? null;
      if (exchange.status === 200 && response.headers["content-type"]?.startsWith("text/event-stream")) {
        exchange.reading = await readStream(response);
        exchange.failure = exchange.reading.failure;
      } else {
        exchange.failure = await readRefusal(response);
      }
    } catch (error) {
      exchange.failure = limit.signal.aborted ? (limit.signal.reason as Failure) : explain(error);
    } finally {
      clearTimeout(timer);
      signal.removeEventListener("abort", onAbort);
    }
    exchange.endedAt = performance.now();
    return exchange;
  }

  /** Closes what is open. */
  close(): void {
    this.#agent.destroy();
  }

  #headers(): Record<string, string> {
    const { key } = this.#options;
    return key === undefined ? {} : { authorization: `Bearer ${key}` };
  }

  #post(url: URL, bytes: Buffer, signal: AbortSignal): Promise<IncomingMessage> {
    const send = url.protocol === "https:" ? httpsRequest : httpRequest;
    return new Promise((resolve, reject) => {
      const request = send(url, {
        method: "POST",
        agent: this.#agent,
        signal,
        headers: {
          ...this.#headers(),
          accept: "text/event-stream",
          "content-type": "application/json",
          "content-length": bytes.length,
        },
      });
      request.on("response", resolve);
      request.on("error", reject);
      request.end(bytes);
    });
  }
}

/** Reads by events rather than by iteration: a chunk's time is taken when it comes, whatever else waits. */
function readStream(response: IncomingMessage): Promise<AnswerReading> {
  const reader = new AnswerReader();
  return new Promise((resolve, reject) => {
    response.on("data", (bytes: Buffer) => reader.feed(bytes, performance.now()));
    response.on("end", () => resolve(reader.end()));
    response.on("error", reject);
  });
}

async function readRefusal(response: IncomingMessage): Promise<Failure> {
  let text = "";
  for await (const bytes of response.setEncoding("utf8")) if (text.length < MAX_ERROR_BYTES) text += bytes;
  if (response.statusCode === 200) return { code: "not_a_stream", message: "the answer is not an event stream" };
  try {
    const error = readError(JSON.parse(text));
    if (error) return error;
  } catch {
    // Proxies answer in HTML: the status alone has to do.
  }
  return { code: "error", message: text.slice(0, 200) };
}

function explain(error: unknown): Failure {
  if (!(error instanceof Error)) return { code: "error", message: String(error) };
  return { code: (error as NodeJS.ErrnoException).code ?? error.name, message: error.message };
}
