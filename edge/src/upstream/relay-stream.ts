import { ApiError } from "@fathom/shared";
import type { ServiceAccount } from "./service-account.ts";
import { SseFramer } from "./sse-framer.ts";
import { meter } from "./stream-meter.ts";

/** What a streamed answer came to. */
export type StreamEnd =
  /** The service's own account. */
  | { how: "complete"; account: ServiceAccount }
  /** Cut short: the tokens that reached the client, and the layers that they used. */
  | { how: "client" | "timeout" | "service"; tokensDelivered: number; layersDelivered: number };

export interface RelayOptions {
  /** Body of the service's response. */
  source: ReadableStream<Uint8Array>;
  /** Aborted when the client is gone. */
  client: AbortSignal;
  /** Aborted when the request's time is up. */
  deadline: AbortSignal;
  /** Stops the service's work. */
  abandon: () => void;
  /** Called once. A whole answer ends only after it has returned, so that its account is settled by then. */
  onEnd: (end: StreamEnd) => Promise<void>;
}

/** How long a client that does not read is given to take the last words, milliseconds. */
const PARTING_MS = 1000;

const encoder = new TextEncoder();

/**
 * Passes a service's events on as they come. The client's leaving ends the service's work; a service that breaks off
 * becomes an error event, and the missing `[DONE]` tells that the answer is not whole.
 * @returns the stream for the client, and a promise that settles once everything is over; it must outlive the request.
 */
export function relayStream(options: RelayOptions): { body: ReadableStream; ended: Promise<void> } {
  const { readable, writable } = new IdentityTransformStream();
  return { body: readable, ended: pump(options, writable.getWriter()) };
}

async function pump(options: RelayOptions, writer: WritableStreamDefaultWriter<Uint8Array>): Promise<void> {
  const { source, client, deadline, abandon, onEnd } = options;
  const reader = source.getReader();
  const framer = new SseFramer();
  let gone = false;
  let tokensDelivered = 0;
  let layersDelivered = 0;
  let account: ServiceAccount | undefined;
  let failed = false;
  let settled = false;

  const leave = (): void => {
    gone = true;
    abandon();
  };
  // A client that leaves while nothing is being written shows only here.
  writer.closed.catch(leave);
  client.addEventListener("abort", leave);
  if (client.aborted) leave();

  const end = async (how: StreamEnd["how"]): Promise<void> => {
    if (settled) return;
    settled = true;
    if (account !== undefined) await onEnd({ how: "complete", account });
    else if (how !== "complete") await onEnd({ how, tokensDelivered, layersDelivered });
  };

  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) break;
      const { bytes, data } = framer.push(value);
      if (bytes.length === 0) continue;
      const metered = meter(data);
      account = metered.account ?? account;
      failed ||= metered.failed;
      if (metered.done) {
        if (account === undefined) throw new Error("the stream has no account");
        await end("complete");
      }
      // A client that does not read must not keep the account open.
      await unless(deadline, writer.write(bytes));
      tokensDelivered += metered.tokens;
      layersDelivered += metered.layers;
    }
    if (!settled && !failed) throw new Error("the stream ended before the answer did");
    await end("service");
    await writer.close();
  } catch (error) {
    const how = gone ? "client" : deadline.aborted ? "timeout" : "service";
    if (how === "service") console.error(JSON.stringify({ stream: "broken", error: String(error) }));
    abandon();
    await end(how);
    if (how !== "client") await part(writer, how);
  } finally {
    client.removeEventListener("abort", leave);
  }
}

/** The result of `work`, unless the signal is aborted first. @throws the signal's reason. */
async function unless(signal: AbortSignal, work: Promise<void>): Promise<void> {
  const aborted = Promise.withResolvers<never>();
  const abort = (): void => aborted.reject(signal.reason);
  signal.addEventListener("abort", abort);
  if (signal.aborted) abort();
  try {
    await Promise.race([work, aborted.promise]);
  } finally {
    signal.removeEventListener("abort", abort);
    // Whichever came second has nobody waiting for it.
    work.catch(() => undefined);
    aborted.promise.catch(() => undefined);
  }
}

/** Tells the client why there is no more, if it still listens. */
async function part(writer: WritableStreamDefaultWriter<Uint8Array>, how: "timeout" | "service"): Promise<void> {
  const error =
    how === "timeout"
      ? new ApiError("timeout", "The answer took too long and was cut off.")
      : new ApiError("upstream_failed", "The GPU service broke off before the answer was complete.");
  const told = writer.write(encoder.encode(`data: ${JSON.stringify(error.toBody())}\n\n`)).then(() => writer.close());
  try {
    await unless(AbortSignal.timeout(PARTING_MS), told);
  } catch {
    // Nobody is there to be told; the stream must still come to its end.
    await writer.abort().catch(() => undefined);
  }
}
