import {
  ApiError,
  type DepthReason,
  PRICE_HEADER,
  REASON_HEADER,
  REQUEST_ID_HEADER,
  type RequestPriority,
} from "@fathom/shared";
import type { ReadyService } from "../fleet/service-state.ts";
import { serviceError } from "./service-error.ts";
import { signServiceToken } from "./sign-token.ts";

/** Services that one request is offered to at most: a request that brings a service down must not bring down all. */
const MAX_TRIES = 2;

export interface ServiceCall {
  /** Services to try, in this order. */
  services: readonly ReadyService[];
  path: string;
  body: unknown;
  requestId: string;
  /** Shares what the service remembers of prompts with nobody else. */
  tenant: string;
  depth: number;
  reason: DepthReason;
  /** Nano-USD per layer-token. */
  price: number;
  priority: RequestPriority;
  secret: string;
  /** Aborted when the client is gone or its time is up. */
  signal: AbortSignal;
}

export interface ServiceAnswer {
  service: ReadyService;
  /** Status 200, body not read. */
  response: Response;
}

/**
 * Sends a request to the first service that takes it. A service answers once it has the first token, so until then the
 * next one may be tried.
 * @throws ApiError what the service says of the request, `upstream_unavailable` when none could be reached,
 *   `upstream_failed` when it did not answer as a service of ours. When the signal is aborted, the signal's reason.
 */
export async function callService(call: ServiceCall): Promise<ServiceAnswer> {
  let refusal = new ApiError("upstream_unavailable", "No GPU service is available.", { retryAfter: 2 });
  for (const service of call.services.slice(0, MAX_TRIES)) {
    let response: Response;
    try {
      response = await send(service, call);
    } catch (error) {
      call.signal.throwIfAborted();
      const message = "The GPU service could not be reached.";
      refusal = new ApiError("upstream_unavailable", message, { retryAfter: 2, cause: error });
      continue;
    }
    if (response.status === 200) return { service, response };
    refusal = await serviceError(response);
    if (!isBusyOrAway(response.status)) break;
  }
  throw refusal;
}

async function send(service: ReadyService, call: ServiceCall): Promise<Response> {
  const token = await signServiceToken(call.secret, {
    jti: call.requestId,
    max_depth: call.depth,
    cache_salt: call.tenant,
    priority: call.priority,
  });
  return await fetch(service.url + call.path, {
    method: "POST",
    headers: {
      authorization: `Bearer ${token}`,
      "content-type": "application/json",
      [REQUEST_ID_HEADER]: call.requestId,
      [REASON_HEADER]: call.reason,
      [PRICE_HEADER]: String(call.price),
    },
    body: JSON.stringify(call.body),
    // Not followed: the token is for this service only.
    redirect: "manual",
    signal: call.signal,
  });
}

/** Full, draining, or not there: Cloudflare answers for an origin that it cannot reach with 520 to 530. */
function isBusyOrAway(status: number): boolean {
  return status === 429 || status === 503 || (status >= 520 && status <= 530);
}
