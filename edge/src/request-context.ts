import type { StatusCode } from "hono/utils/http-status";
import type { AppEnv } from "./app-env.ts";

/**
 * What admitting and answering a request needs of its surroundings. Hono's context of a client's request is one; a line of
 * a batch, for which no client waits, has one of its own.
 */
export interface RequestContext {
  env: Env;
  var: Pick<AppEnv["Variables"], "requestId" | "log" | "timing" | "customer" | "priorityClass" | "leaseId">;
  executionCtx: Pick<ExecutionContext, "waitUntil">;
  /** Sets a header of the answer. */
  header(name: string, value: string): void;
  /** Makes the answer. */
  body(data: string | ReadableStream, status: StatusCode, headers: Record<string, string>): Response;
}
