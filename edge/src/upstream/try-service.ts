import { ApiError, PRICE_HEADER, REASON_HEADER, REQUEST_ID_HEADER } from "@fathom/shared";
import type { TryEnd } from "../fleet/breakers.ts";
import type { ReadyService } from "../fleet/service-state.ts";
import type { ServiceCall } from "./call-service.ts";
import { serviceError } from "./service-error.ts";
import { signServiceToken } from "./sign-token.ts";

/** What became of one try. */
export type TryResult =
  /** Status 200 and the type that was asked for; the body is not read. */
  | { answered: true; service: ReadyService; response: Response }
  /** @property elsewhere whether another service may do better */
  | { answered: false; error: ApiError; elsewhere: boolean };

/** A body that is ready to be sent, and what binds the token to it. */
export interface SealedBody {
  text: string;
  /** SHA-256 of the bytes, hex. */
  sha256: string;
}

interface TryOptions {
  call: ServiceCall;
  body: SealedBody;
  service: ReadyService;
  /** Told once what the try says of the service, unless it answers: then the answer's end says it. */
  onEnd: (end: TryEnd) => void;
  /** Aborted when the answer is no longer wanted. */
  signal: AbortSignal;
}

/**
 * Sends a request to one service and waits until it begins to answer. What fails is logged with the service's name.
 * @throws the call's own reason when its signal is aborted, or the try's
 */
export async function tryService({ call, body, service, onEnd, signal }: TryOptions): Promise<TryResult> {
  const late = new AbortController();
  const timer =
    call.firstByteTimeoutMs === undefined ? undefined : setTimeout(() => late.abort(), call.firstByteTimeoutMs);
  const failed = (error: ApiError, elsewhere: boolean, end: TryEnd): TryResult => {
    onEnd(end);
    const { requestId } = call;
    console.warn(JSON.stringify({ requestId, service: service.url, failed: String(error.cause ?? error.message) }));
    return { answered: false, error, elsewhere };
  };
  try {
    const response = await send(call, body, service, AbortSignal.any([signal, late.signal]));
    if (response.status === 200) {
      const type = response.headers.get("content-type") ?? "";
      // Whether it is well shows only when the answer is complete.
      if (response.body && type.startsWith(call.contentType)) return { answered: true, service, response };
      await response.body?.cancel();
      const cause = `an answer of type '${type}' instead of '${call.contentType}'`;
      return failed(new ApiError("upstream_failed", "The GPU service failed.", { cause }), true, "failed");
    }
    return failed(await serviceError(response), mayAskAnother(response.status), endOf(response.status));
  } catch (error) {
    if (signal.aborted) {
      onEnd("unknown");
      throw signal.reason;
    }
    if (late.signal.aborted) {
      const cause = `no first byte within ${call.firstByteTimeoutMs} ms`;
      return failed(new ApiError("timeout", "The GPU service did not begin to answer.", { cause }), true, "failed");
    }
    const message = "The GPU service could not be reached.";
    return failed(new ApiError("upstream_unavailable", message, { retryAfter: 2, cause: error }), true, "failed");
  } finally {
    clearTimeout(timer);
  }
}

async function send(
  call: ServiceCall,
  { text, sha256 }: SealedBody,
  service: ReadyService,
  signal: AbortSignal,
): Promise<Response> {
  const token = await signServiceToken(call.secret, {
    jti: call.nextTokenId(),
    max_depth: call.depth,
    cache_salt: call.tenant,
    priority: call.priority,
    body_sha256: sha256,
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
    body: text,
    // Not followed: the token is for this service only.
    redirect: "manual",
    signal,
  });
}

/** Full, draining, at odds with us about the token (its clock may be wrong), or not there (see `isUnreachable`). */
function mayAskAnother(status: number): boolean {
  return status === 401 || status === 429 || status === 503 || isUnreachable(status);
}

/** What a refusal says of the service: one that is full, or that finds fault with the request, is well. */
function endOf(status: number): TryEnd {
  if (status === 401 || isUnreachable(status)) return "failed";
  // Too late in its own opinion, or on its way out: neither well nor broken.
  if (status === 503 || status === 504) return "unknown";
  return status >= 500 || (status >= 300 && status < 400) ? "failed" : "answered";
}

/** Cloudflare answers for an origin that it cannot reach with 520 to 530. */
function isUnreachable(status: number): boolean {
  return status >= 520 && status <= 530;
}
