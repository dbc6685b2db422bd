import type { RequestPriority } from "@fathom/shared";
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
    priorityClass: RequestPriority["class"];
    /** Name of the hold in the ledger, where it is not the request's own id: a line that is run again keeps its hold. */
    leaseId?: string;
    /** Set by `requireApiKey`. */
    customer: Customer;
  };
}
