import { ApiError } from "@fathom/shared";

const encoder = new TextEncoder();

/** One server-sent event that carries a JSON value. */
export function sseEvent(value: unknown): Uint8Array {
  return encoder.encode(`data: ${JSON.stringify(value)}\n\n`);
}

/** OpenAI's end of a stream. */
export const SSE_DONE = encoder.encode("data: [DONE]\n\n");

/** Bytes that wait for a slow client, about 250 tokens; beyond that its answer is held up. */
const BUFFER_BYTES = 64 * 1024;
/** How long a client may leave a full buffer unread before its answer is dropped, milliseconds. */
const STALL_MS = 30_000;

export interface SseOptions {
  /** Aborted when the events are about to end: from then on nothing is held up. */
  signal: AbortSignal;
  /** Called when the client goes away before the end, or has not read for too long (with an error that says so). */
  onDisconnect: (reason?: ApiError) => void;
  /** For tests. */
  bufferBytes?: number;
  stallMs?: number;
}

/**
 * Sends events as the client takes them. One that reads slowly holds up its own events alone, which pauses its request in
 * the engine; one that does not read at all is dropped.
 */
export function sseStream(events: AsyncIterable<Uint8Array>, options: SseOptions): ReadableStream<Uint8Array> {
  const { signal, onDisconnect, bufferBytes = BUFFER_BYTES, stallMs = STALL_MS } = options;
  let open = true;
  let room = Promise.withResolvers<void>();
  const onAbort = () => room.resolve();
  signal.addEventListener("abort", onAbort, { once: true });

  const drop = (controller: ReadableStreamDefaultController<Uint8Array>): void => {
    open = false;
    const reason = new ApiError("cancelled", "The client did not read its answer.");
    controller.error(reason);
    onDisconnect(reason);
    room.resolve();
  };
  const waitForRoom = async (controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> => {
    room = Promise.withResolvers();
    if (signal.aborted || (controller.desiredSize ?? 1) > 0) return;
    const stalled = setTimeout(() => drop(controller), stallMs);
    await room.promise;
    clearTimeout(stalled);
  };
  const pump = async (controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> => {
    try {
      for await (const event of events) {
        if (!open) continue;
        controller.enqueue(event);
        await waitForRoom(controller);
      }
      if (open) controller.close();
    } catch (error) {
      if (open) controller.error(error);
    } finally {
      // Node keeps a combined signal alive for as long as somebody listens.
      signal.removeEventListener("abort", onAbort);
    }
  };
  return new ReadableStream(
    {
      start(controller) {
        // Not awaited: the stream can be read only once `start` is done.
        void pump(controller);
      },
      pull() {
        room.resolve();
      },
      cancel() {
        open = false;
        onDisconnect();
        room.resolve();
      },
    },
    { highWaterMark: bufferBytes, size: (event) => event.byteLength },
  );
}
