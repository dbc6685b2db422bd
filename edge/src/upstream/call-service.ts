import { ApiError, type DepthReason, type RequestPriority } from "@fathom/shared";
import { startTry, type TryEnd } from "../fleet/breakers.ts";
import type { ReadyService } from "../fleet/service-state.ts";
import { sha256Hex } from "./sha256-hex.ts";
import { type TryResult, tryService } from "./try-service.ts";

/** Services that one request is offered to at most: a request that brings a service down must not bring down all. */
const MAX_TRIES = 2;

export interface ServiceCall {
  /** Services to try, in this order. */
  services: readonly ReadyService[];
  path: string;
  body: unknown;
  /** How the content type of the answer begins. */
  contentType: string;
  requestId: string;
  /** An id for the token of the next try: a service takes each once. */
  nextTokenId: () => string;
  /** Shares what the service remembers of prompts with nobody else. */
  tenant: string;
  depth: number;
  reason: DepthReason;
  /** Nano-USD per layer-token. */
  price: number;
  priority: RequestPriority;
  secret: string;
  /** How long a service may take to begin, milliseconds; undefined: as long as the request may. */
  firstByteTimeoutMs: number | undefined;
  /** When a second service is asked although the first may still answer, milliseconds; undefined: never. */
  hedgeAfterMs: number | undefined;
  /** Aborted when the client is gone or its time is up. */
  signal: AbortSignal;
}

export interface ServiceAnswer {
  service: ReadyService;
  /** Status 200, body not read. */
  response: Response;
  /** To be called once with what the answer, when it has ended, says of the service. */
  end: (end: TryEnd) => void;
}

interface Try {
  cancel: AbortController;
  result: Promise<{ of: Try; got: TryResult }>;
  end: (end: TryEnd) => void;
}

/**
 * Sends a request to the first service that takes it. A stream begins once there is a first token, so until then the next
 * one may be tried, or asked at the same time; the others are aborted when one has begun.
 * @throws ApiError what the service says of the request, `upstream_unavailable` when none could be reached, `timeout` when
 *   none began in time, `upstream_failed` when it did not answer as a service of ours. When the signal is aborted, its reason.
 */
export async function callService(call: ServiceCall): Promise<ServiceAnswer> {
  const text = JSON.stringify(call.body);
  const body = { text, sha256: await sha256Hex(new TextEncoder().encode(text)) };
  const left = [...call.services];
  const running = new Set<Try>();
  let tries = 0;
  let refusal = new ApiError("upstream_unavailable", "No GPU service is available.", { retryAfter: 2 });

  const startNext = (): boolean => {
    for (let service = left.shift(); service && tries < MAX_TRIES; service = left.shift()) {
      const end = startTry(service.url);
      // Another request may have found out meanwhile that it is not well.
      if (!end) continue;
      tries++;
      const cancel = new AbortController();
      const signal = AbortSignal.any([call.signal, cancel.signal]);
      const got = tryService({ call, body, service, onEnd: end, signal });
      const started: Try = { cancel, end, result: got.then((result) => ({ of: started, got: result })) };
      running.add(started);
      return true;
    }
    return false;
  };

  const hedge = hedgeTimer(call);
  try {
    while (running.size > 0 || startNext()) {
      const next = await Promise.race([
        ...[...running].map(({ result }) => result),
        ...(hedge.fired ? [hedge.fired] : []),
      ]);
      if (next === "hedge") {
        hedge.stop();
        startNext();
        continue;
      }
      running.delete(next.of);
      if (next.got.answered) {
        const { service, response } = next.got;
        return { service, response, end: next.of.end };
      }
      refusal = next.got.error;
      if (!next.got.elsewhere) break;
    }
    throw refusal;
  } finally {
    hedge.stop();
    for (const loser of running) abandon(loser);
  }
}

/** Stops a try whose answer nobody wants any more, also when it has just begun. */
function abandon({ cancel, result, end }: Try): void {
  cancel.abort();
  result
    .then(
      async ({ got }) => {
        if (!got.answered) return;
        end("unknown");
        await got.response.body?.cancel();
      },
      // It was stopped.
      () => undefined,
    )
    .catch(() => undefined);
}

interface HedgeTimer {
  /** Resolves when a second service is to be asked; undefined when none is, or was. */
  fired: Promise<"hedge"> | undefined;
  stop(): void;
}

function hedgeTimer({ hedgeAfterMs }: ServiceCall): HedgeTimer {
  if (hedgeAfterMs === undefined) return { fired: undefined, stop: () => undefined };
  const { promise, resolve } = Promise.withResolvers<"hedge">();
  const timer = setTimeout(() => resolve("hedge"), hedgeAfterMs);
  const hedge: HedgeTimer = {
    fired: promise,
    stop: () => {
      clearTimeout(timer);
      hedge.fired = undefined;
    },
  };
  return hedge;
}
