/** An event longer than this is not one of a service of ours, bytes. */
const MAX_EVENT_BYTES = 4 * 1024 * 1024;

const LF = 10;
const CR = 13;

/** Whole events, as they came and as their data. */
export interface Frames {
  bytes: Uint8Array<ArrayBuffer>;
  /** `data` of each event that has one. */
  data: string[];
}

/**
 * Cuts a stream of server-sent events at the ends of events, so that a stream that breaks off never leaves half an event
 * with the client.
 */
export class SseFramer {
  readonly #decoder = new TextDecoder();
  #rest: Uint8Array<ArrayBuffer> = new Uint8Array(0);

  /**
   * Takes the next bytes and returns the events that are complete with them.
   * @throws Error when an event does not end.
   */
  push(chunk: Uint8Array): Frames {
    const pending = new Uint8Array(this.#rest.length + chunk.length);
    pending.set(this.#rest);
    pending.set(chunk, this.#rest.length);
    const end = endOfLastEvent(pending);
    this.#rest = pending.slice(end);
    if (this.#rest.length > MAX_EVENT_BYTES) throw new Error("an event of the stream does not end");
    const bytes = pending.subarray(0, end);
    return { bytes, data: end === 0 ? [] : dataOf(this.#decoder.decode(bytes)) };
  }
}

/** Position after the last empty line. Line feeds are never part of a longer UTF-8 sequence. */
function endOfLastEvent(bytes: Uint8Array): number {
  for (let i = bytes.length - 1; i > 0; i--) {
    if (bytes[i] !== LF) continue;
    const before = bytes[i - 1] === CR ? i - 2 : i - 1;
    if (bytes[before] === LF) return i + 1;
  }
  return 0;
}

function dataOf(text: string): string[] {
  return text
    .split(/\r?\n\r?\n/)
    .map((event) =>
      event
        .split(/\r?\n/)
        .filter((line) => line.startsWith("data:"))
        .map((line) => line.slice(line.startsWith("data: ") ? 6 : 5))
        .join("\n"),
    )
    .filter((data) => data !== "");
}
