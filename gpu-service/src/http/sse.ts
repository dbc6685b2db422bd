const encoder = new TextEncoder();

/** One server-sent event that carries a JSON value. */
export function sseEvent(value: unknown): Uint8Array {
  return encoder.encode(`data: ${JSON.stringify(value)}\n\n`);
}

/** OpenAI's end of a stream. */
export const SSE_DONE = encoder.encode("data: [DONE]\n\n");

/**
 * Sends events as fast as they come, whether or not the client keeps up: a slow reader must not keep a row of the engine.
 * What waits for it is bounded by the answer's length.
 * @param onDisconnect called when the client goes away before the end
 */
export function sseStream(events: AsyncIterable<Uint8Array>, onDisconnect: () => void): ReadableStream<Uint8Array> {
  let open = true;
  const pump = async (controller: ReadableStreamDefaultController<Uint8Array>): Promise<void> => {
    try {
      for await (const event of events) {
        if (open) controller.enqueue(event);
      }
      if (open) controller.close();
    } catch (error) {
      if (open) controller.error(error);
    }
  };
  return new ReadableStream({
    start(controller) {
      // Not awaited: the stream can be read only once `start` is done.
      void pump(controller);
    },
    cancel() {
      open = false;
      onDisconnect();
    },
  });
}
