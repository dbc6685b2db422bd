import { ApiError, type ErrorCode, fromZodError } from "@fathom/shared";
import { toApiError } from "../http/errors.ts";
import { RequestEnd } from "../http/request-end.ts";
import { RequestLog } from "../http/request-log.ts";
import { ServerTiming } from "../http/server-timing.ts";
import type { Plans } from "../policy/plan.ts";
import type { RequestContext } from "../request-context.ts";
import { admit } from "../routes/admit.ts";
import { answer } from "../routes/answer.ts";
import { chatEndpoint, completionEndpoint, type Endpoint, type GenerationRequest } from "../routes/endpoint.ts";
import { settingsOf } from "../settings.ts";
import type { BatchLine } from "./batch-line.ts";
import { batchPlan } from "./batch-plan.ts";
import type { BatchEndpoint, BatchHolder } from "./batch-record.ts";
import type { LineOutcome } from "./batch-store.ts";
import { answeredResult, refusedResult } from "./result-line.ts";

/** A service may fail a line this often before that is the line's result. */
const MAX_FAILURES = 3;

/** One request of a batch, ready to run. */
export interface LineToRun {
  holder: BatchHolder;
  endpoint: BatchEndpoint;
  request: BatchLine;
  /** Name of its hold in the ledger. */
  leaseId: string;
  /** Tries that failed before. */
  failures: number;
}

/** Runs a line as an interactive request is run: the same checks, depth policy, ledger and services. Never throws. */
export async function runLine(
  env: Env,
  ctx: Pick<ExecutionContext, "waitUntil">,
  plans: Plans,
  line: LineToRun,
): Promise<LineOutcome> {
  const requestId = crypto.randomUUID();
  const { endpoint, request, failures } = line;
  const { custom_id: customId } = request;
  const log = new RequestLog(requestId, "BATCH", endpoint);
  try {
    const body = await run(contextOf(env, ctx, plans, line, requestId, log), endpoint, request.body);
    log.add({ status: 200 });
    return { kind: "done", ok: true, result: answeredResult(customId, requestId, body) };
  } catch (cause) {
    const error = toApiError(cause);
    log.add({ status: error.status, error: error.code });
    const again = retryOf(error.code);
    if (again === "wait") return { kind: "retry", failed: false };
    if (again === "retry" && failures + 1 < MAX_FAILURES) return { kind: "retry", failed: true };
    return { kind: "done", ok: false, result: refusedResult(customId, requestId, error) };
  } finally {
    log.write();
  }
}

async function run(c: RequestContext, endpoint: BatchEndpoint, body: unknown): Promise<unknown> {
  switch (endpoint) {
    case "/v1/chat/completions":
      return await generateFor(c, chatEndpoint, body);
    case "/v1/completions":
      return await generateFor(c, completionEndpoint, body);
    default:
      return endpoint satisfies never;
  }
}

async function generateFor<T extends GenerationRequest>(
  c: RequestContext,
  endpoint: Endpoint<T>,
  body: unknown,
): Promise<unknown> {
  const parsed = endpoint.schema.safeParse(body);
  if (!parsed.success) throw fromZodError(parsed.error);
  if (parsed.data.stream === true) {
    throw new ApiError("invalid_request", "'stream': a batch has nobody to stream to", { param: "stream" });
  }
  const end = new RequestEnd(new AbortController().signal, settingsOf(c.env).requestTimeoutMs);
  try {
    const admitted = await admit(c, endpoint, parsed.data, end);
    if ("answered" in admitted) throw new Error("a line of a batch has no idempotency key");
    const response = await answer(c, admitted, end);
    return await response.json();
  } catch (error) {
    throw end.explain(error);
  } finally {
    end.close();
  }
}

function contextOf(
  env: Env,
  executionCtx: Pick<ExecutionContext, "waitUntil">,
  plans: Plans,
  { holder, leaseId }: LineToRun,
  requestId: string,
  log: RequestLog,
): RequestContext {
  const { tenant, keyId, planName } = holder;
  log.add({ tenant, plan: planName });
  const plan = plans.get(planName);
  if (!plan) throw new ApiError("permission_denied", `The plan '${planName}' of this batch is no longer offered.`);
  const customer = { tenant, keyId, planName, plan: batchPlan(plan) };
  return {
    env,
    executionCtx,
    var: { requestId, leaseId, log, timing: new ServerTiming(), customer, priorityClass: "batch" },
    header: () => undefined,
    body: (data, status, headers) => new Response(data, { status, headers }),
  };
}

/** Whether a line that was refused with a code is to wait for room, or to be tried again a few times. */
function retryOf(code: ErrorCode): "wait" | "retry" | "no" {
  switch (code) {
    case "rate_limited":
    case "concurrency_limited":
    case "overloaded":
    case "draining":
    case "upstream_unavailable":
      return "wait";
    case "upstream_failed":
    case "timeout":
    case "cancelled":
    case "internal_error":
      return "retry";
    default:
      return "no";
  }
}
