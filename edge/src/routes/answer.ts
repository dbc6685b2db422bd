import { ApiError, priceMicroUsd } from "@fathom/shared";
import type { TryEnd } from "../fleet/breakers.ts";
import type { RequestEnd } from "../http/request-end.ts";
import { requestPriority } from "../policy/request-priority.ts";
import type { RequestContext } from "../request-context.ts";
import { settingsOf } from "../settings.ts";
import { callService, type ServiceAnswer } from "../upstream/call-service.ts";
import { relayStream, type StreamEnd } from "../upstream/relay-stream.ts";
import { ServiceAccount } from "../upstream/service-account.ts";
import type { Metered } from "../usage/usage-row.ts";
import type { Admitted } from "./admit.ts";
import { meteredNothing, meteredStream, meteredWhole } from "./metered.ts";

const SSE_HEADERS = {
  "content-type": "text/event-stream; charset=utf-8",
  // Proxies in the manner of nginx would collect the stream otherwise.
  "x-accel-buffering": "no",
};

/**
 * Has a service answer an admitted request, passes the answer on and charges what it cost. A whole answer, and the end of
 * a stream, reach the client once their account is settled.
 * @throws ApiError when nothing of the answer was sent yet; the hold is ended then.
 */
export async function answer(c: RequestContext, admitted: Admitted, end: RequestEnd): Promise<Response> {
  const { lease, offer, request } = admitted;
  try {
    const answered = await c.var.timing.measure("service", () => send(c, admitted, end));
    c.header("x-fathom-depth", String(offer.depth));
    c.header("x-fathom-reason", offer.reason);
    if (offer.maxTokens !== undefined) c.header("x-fathom-max-tokens", String(offer.maxTokens));
    c.header("server-timing", c.var.timing.toString());
    return request.stream === true ? stream(c, admitted, end, answered) : await whole(c, admitted, end, answered);
  } catch (error) {
    end.abandon();
    // A client that left has used its place in the rate; a service that failed has served nobody.
    if (end.client.aborted) await lease.settle(0, meteredNothing(admitted, "client"));
    else await lease.release();
    throw error;
  }
}

/** Sends the request on; once more without a limit if the plan's limit alone was what did not fit the context. */
async function send(c: RequestContext, admitted: Admitted, end: RequestEnd): Promise<ServiceAnswer> {
  const { request, path, maxTokensField, services, limit, offer } = admitted;
  const { max_tokens: _, ...rest } = { ...request, max_completion_tokens: undefined };
  const { plan, tenant } = c.var.customer;
  const { serviceSecret, firstByteTimeoutMs, hedgeAfterMs } = settingsOf(c.env);
  const streams = request.stream === true;
  let tries = 0;
  const call = async (maxTokens: number | undefined): Promise<ServiceAnswer> => {
    const answered = await callService({
      services,
      path,
      // The exit policy goes on as it is: the depth only caps it.
      body: { ...rest, [maxTokensField]: maxTokens, fathom: { ...request.fathom, depth: offer.depth } },
      contentType: streams ? "text/event-stream" : "application/json",
      requestId: c.var.requestId,
      nextTokenId: () => `${c.var.requestId}.${++tries}`,
      tenant,
      depth: offer.depth,
      reason: offer.reason,
      price: plan.price_nano_usd_per_layer_token,
      priority: requestPriority(plan, c.var.priorityClass),
      secret: serviceSecret,
      // A whole answer begins when it is complete: how long that takes depends on its length.
      firstByteTimeoutMs: streams ? firstByteTimeoutMs : undefined,
      hedgeAfterMs: streams ? hedgeAfterMs : undefined,
      signal: end.signal,
    });
    c.var.log.add({ service: answered.service.url });
    admitted.servedBy = answered.service.url;
    return answered;
  };
  try {
    return await call(limit.maxTokens);
  } catch (error) {
    if (limit.mayUseRoom && isTooLong(error, maxTokensField)) return await call(undefined);
    throw error;
  }
}

async function whole(
  c: RequestContext,
  admitted: Admitted,
  end: RequestEnd,
  { response, end: tell }: ServiceAnswer,
): Promise<Response> {
  const text = await response.text().catch((cause: unknown) => {
    tell(end.signal.aborted ? "unknown" : "failed");
    throw new ApiError("upstream_failed", "The GPU service broke off before the answer was complete.", { cause });
  });
  const account = ServiceAccount.safeParse(parseJson(text));
  if (!account.success) {
    tell("failed");
    throw new ApiError("upstream_failed", "The GPU service failed.", { cause: "an answer without its account" });
  }
  tell("answered");
  await charge(c, admitted, meteredWhole(admitted, account.data), text);
  end.close();
  return c.body(text, 200, { "content-type": "application/json" });
}

function stream(
  c: RequestContext,
  admitted: Admitted,
  end: RequestEnd,
  { response, end: tell }: ServiceAnswer,
): Response {
  if (!response.body) throw new ApiError("upstream_failed", "The GPU service failed.", { cause: "no body" });
  const { log } = c.var;
  log.add({ status: 200 });
  log.defer();
  const { body, ended } = relayStream({
    source: response.body,
    client: end.client,
    deadline: end.deadline,
    abandon: () => end.abandon(),
    onEnd: async (ending) => {
      tell(endOf(ending.how));
      if (ending.how !== "complete") log.add({ cut: ending.how });
      await charge(c, admitted, meteredStream(admitted, ending));
      log.write();
    },
  });
  c.executionCtx.waitUntil(ended.finally(() => end.close()));
  return c.body(body, 200, SSE_HEADERS);
}

/** What a stream's end says of the service: a client that left or was slow says nothing. */
function endOf(how: StreamEnd["how"]): TryEnd {
  switch (how) {
    case "complete":
      return "answered";
    case "service":
      return "failed";
    case "client":
    case "timeout":
      return "unknown";
    default:
      return how satisfies never;
  }
}

/** @param text the answer, where it is whole */
async function charge(
  c: RequestContext,
  { lease, keepAnswer }: Admitted,
  metered: Metered,
  text?: string,
): Promise<void> {
  const layerTokens = metered.layer_tokens;
  const microUsd = priceMicroUsd(layerTokens, c.var.customer.plan.price_nano_usd_per_layer_token);
  c.var.log.add({ layerTokens, microUsd });
  await lease.settle(microUsd, metered, keepAnswer ? text : undefined);
}

function isTooLong(error: unknown, field: string): boolean {
  return error instanceof ApiError && error.code === "context_length_exceeded" && error.param === field;
}

function parseJson(text: string): unknown {
  try {
    return JSON.parse(text);
  } catch {
    return undefined;
  }
}
