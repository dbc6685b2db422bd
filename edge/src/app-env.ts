import type { RequestLog } from "./http/request-log.ts";
import type { ServerTiming } from "./http/server-timing.ts";
import type { Plan } from "./policy/plan.ts";

/** Who pays for a request. */
export interface Customer {
  tenant: string;
  /** Public id of the API key. */
  keyId: string;
  planName: string;
  plan: Plan;
}

/** Types of the worker's Hono app. */
export interface AppEnv {
  Bindings: Env;
  Variables: {
    requestId: string;
    log: RequestLog;
    timing: ServerTiming;
    /** Aborted when the client goes away. */
    client: AbortSignal;
    /** Set by `requireApiKey`. */
    customer: Customer;
  };
}
