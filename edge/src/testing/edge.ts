import { env, exports } from "cloudflare:workers";
import type { ErrorBody, ServiceTokenClaims } from "@fathom/shared";
import { inject } from "vitest";
import { createApp } from "../app.ts";
import type { Usage } from "../ledger/ledger.ts";
import { parsePlans } from "../policy/plan.ts";

const ORIGIN = "https://edge.test";

/** Sends a request to the worker. */
export function send(path: string, init?: RequestInit): Promise<Response> {
  return exports.default.fetch(new Request(ORIGIN + path, init));
}

/** A new tenant with a key. */
export interface TestTenant {
  name: string;
  key: string;
  usage(): Promise<Usage>;
}

/** Makes a tenant on a plan, through the admin interface. */
export async function newTenant(plan = "enterprise"): Promise<TestTenant> {
  const name = crypto.randomUUID();
  const response = await send("/admin/keys", {
    method: "POST",
    headers: { authorization: `Bearer ${env.ADMIN_SECRET}`, "content-type": "application/json" },
    body: JSON.stringify({ tenant: name, plan }),
  });
  const { key } = await response.json<{ key: string }>();
  return { name, key, usage: async () => await env.LEDGER.getByName(name).usage() };
}

type Body = Record<string, unknown>;

/** A POST of JSON with a key; `init` adds to it. */
export function post(key: string, body: unknown, init: RequestInit = {}): RequestInit {
  return {
    method: "POST",
    body: typeof body === "string" ? body : JSON.stringify(body),
    ...init,
    headers: {
      authorization: `Bearer ${key}`,
      "content-type": "application/json",
      ...(init.headers as Record<string, string>),
    },
  };
}

export const CHAT = { model: "fathom", messages: [{ role: "user", content: "one two three" }] };

/** `POST /v1/chat/completions` with a prompt of three words. */
export function chat({ key }: TestTenant, more: Body = {}, init?: RequestInit): Promise<Response> {
  return send("/v1/chat/completions", post(key, { ...CHAT, ...more }, init));
}

/** `POST /v1/completions` with a prompt of three words. */
export function complete({ key }: TestTenant, more: Body = {}, init?: RequestInit): Promise<Response> {
  return send("/v1/completions", post(key, { model: "fathom", prompt: "one two three", ...more }, init));
}

/** What the stub keeps of a request. */
export interface Seen {
  requestId: string;
  path: string;
  headers: Record<string, string>;
  claims: ServiceTokenClaims;
  body: Body & { fathom: Body };
  end: "open" | "finished" | "aborted";
}

/** What a billing webhook was sent. */
export interface Hook {
  headers: Record<string, string>;
  body: string;
}

/** One of the services that the stub plays. */
export class StubService {
  readonly url: string;

  constructor(name: string = crypto.randomUUID()) {
    this.url = `${inject("stubUrl")}/${name}`;
  }

  async set(state: {
    load?: { running: number; waiting: number };
    status?: number;
    model?: string;
    mischief?: string;
    healthDelayMs?: number;
  }): Promise<this> {
    await this.#control({ method: "PUT", body: JSON.stringify(state) });
    return this;
  }

  async requests(): Promise<Seen[]> {
    return (await this.#control()).requests;
  }

  async healthChecks(): Promise<number> {
    return (await this.#control()).healthChecks;
  }

  /** What it was sent as a billing webhook. */
  async hooks(): Promise<Hook[]> {
    return (await this.#control()).hooks;
  }

  /** The one request that got this answer. */
  async seen(response: Response): Promise<Seen> {
    const id = response.headers.get("x-request-id");
    const found = (await this.requests()).find(({ requestId }) => requestId === id);
    if (!found) throw new Error(`the service saw no request ${id}`);
    return found;
  }

  async #control(init?: RequestInit): Promise<{ requests: Seen[]; healthChecks: number; hooks: Hook[] }> {
    const response = await fetch(`${this.url}/control`, init);
    return await response.json();
  }
}

/** The service that the worker under test is configured with. */
export const mainService = new StubService("main");

/** A worker like the one under test, with other variables. */
export function edgeWith(variables: Partial<Env>): (path: string, init?: RequestInit) => Promise<Response> {
  const app = createApp(parsePlans(JSON.parse(env.PLANS ?? "{}"), "PLANS"));
  const ctx = { waitUntil: () => undefined, passThroughOnException: () => undefined, props: {} };
  const bindings = { ...env, ...variables } as Env;
  return async (path, init) =>
    await app.fetch(new Request(ORIGIN + path, init), bindings, ctx as unknown as ExecutionContext);
}

/** The `data` of a stream's events. */
export async function events(response: Response): Promise<string[]> {
  return dataOf(await response.text());
}

export function dataOf(text: string): string[] {
  return text
    .split("\n\n")
    .filter((event) => event !== "")
    .map((event) => event.replace(/^data: /, ""));
}

/** Status and error of a refusal. */
export async function refusal(response: Response): Promise<{ status: number } & ErrorBody["error"]> {
  const { error } = await response.json<ErrorBody>();
  return { status: response.status, ...error };
}

/** Asks again and again until the answer is as hoped: for what happens in its own time. */
export async function eventually<T>(ask: () => Promise<T>, hoped: (answer: T) => boolean): Promise<T> {
  for (let attempt = 0; attempt < 1000; attempt++) {
    const answer = await ask();
    if (hoped(answer)) return answer;
    await scheduler.wait(10);
  }
  return await ask();
}
