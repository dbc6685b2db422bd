import plans from "@fathom/edge/plans.json" with { type: "json" };
import { ErrorBody } from "@fathom/shared";
import { startEdge } from "../../bench/edge/worker-process.ts";
import { SECRET } from "../../service/helpers/service-process.ts";
import { TINY_EXITS } from "../../service/helpers/tiny-checkpoint.ts";

const ADMIN = "admin-secret-of-the-fault-suite";
const BUDGET = 1_000_000_000;
/** One layer-token costs one micro-USD. */
const PLAN = { ...plans.enterprise, price_nano_usd_per_layer_token: 1000, monthly_budget_micro_usd: BUDGET };

export const FIRST_BYTE_MS = 1000;
export const REQUEST_MS = 3000;

/** A line of the edge's log. */
export type EdgeLog = Record<string, unknown>;

export interface Tenant {
  key: string;
  /** What was charged and what is still held, micro-USD. */
  spent(): Promise<number>;
}

export interface FaultEdge {
  url: string;
  log: readonly EdgeLog[];
  newTenant(): Promise<Tenant>;
  /** A chat of 200 tokens, unless the body says otherwise. */
  chat(tenant: Tenant, body?: object): Promise<Response>;
  /** Waits for a line of the log, also one that was written already. */
  logged(matches: (line: EdgeLog) => boolean): Promise<EdgeLog>;
  stop(): Promise<void>;
}

/** The router as it is deployed, in a workerd process of its own, with short time limits. */
export async function faultEdge(variables: Record<string, string>): Promise<FaultEdge> {
  const log: EdgeLog[] = [];
  const edge = await startEdge(
    {
      SERVICE_SECRET: SECRET,
      ADMIN_SECRET: ADMIN,
      PLANS: JSON.stringify({ plan: PLAN }),
      FIRST_BYTE_TIMEOUT_MS: String(FIRST_BYTE_MS),
      REQUEST_TIMEOUT_SECONDS: String(REQUEST_MS / 1000),
      ...variables,
    },
    (line) => {
      if (line.startsWith("{")) log.push(JSON.parse(line));
    },
  );
  const post = (path: string, key: string, body: object): Promise<Response> =>
    fetch(edge.url + path, {
      method: "POST",
      headers: { authorization: `Bearer ${key}`, "content-type": "application/json" },
      body: JSON.stringify(body),
    });
  let tenants = 0;
  return {
    url: edge.url,
    log,
    newTenant: async () => {
      const created = await post("/admin/keys", ADMIN, { tenant: `tenant-${++tenants}`, plan: "plan" });
      const { key } = (await created.json()) as { key: string };
      const spent = async (): Promise<number> => {
        // With exits and load given the pool is not asked, only the account.
        const explained = await post("/v1/policy/explain", key, { exits: TINY_EXITS, load: 0 });
        return BUDGET - ((await explained.json()) as { remaining_micro_usd: number }).remaining_micro_usd;
      };
      return { key, spent };
    },
    chat: async ({ key }, body = {}) =>
      await post("/v1/chat/completions", key, {
        model: "fathom",
        messages: [{ role: "user", content: "the cat" }],
        temperature: 0,
        max_tokens: 200,
        ...body,
      }),
    logged: async (matches) => await until(async () => log.find(matches), "a line of the edge's log"),
    stop: edge.stop,
  };
}

/** Asks until there is something. @throws after ten seconds */
export async function until<T>(ask: () => Promise<T | undefined>, what: string): Promise<T> {
  const end = Date.now() + 10_000;
  while (Date.now() < end) {
    const found = await ask();
    if (found !== undefined) return found;
    await new Promise((resolve) => setTimeout(resolve, 20));
  }
  throw new Error(`${what} did not come`);
}

/** What a client sees of a refusal. */
export async function refusal(response: Response): Promise<object> {
  const { error } = ErrorBody.parse(await response.json());
  return { status: response.status, code: error.code };
}

/** Reads a stream to its end; `onFirst` is called when the first event has come. */
export async function readStream(response: Response, onFirst: () => void = () => undefined): Promise<string[]> {
  let text = "";
  let first = true;
  const decoder = new TextDecoder();
  for await (const chunk of response.body ?? []) {
    if (first) onFirst();
    first = false;
    text += decoder.decode(chunk, { stream: true });
  }
  return text.split("\n\n").flatMap((event) => (event === "" ? [] : [event.replace(/^data: /, "")]));
}
