import type { Heartbeat } from "@fathom/shared";
import type { ServiceState } from "./service-state.ts";

/** A service that is silent for longer is out, milliseconds. */
export const SILENCE_MS = 2000;

/** How long the last word of a service is remembered, so that an older one cannot bring it back: longer than a token holds. */
const MEMORY_MS = 300_000;

/** Services that one pool may have. */
const MOST = 1000;

interface Heard {
  beat: Heartbeat;
  /** On our clock. */
  at: number;
}

/** The services that register themselves. */
export class Registry {
  readonly #heard = new Map<string, Heard>();

  /**
   * Takes a heartbeat whose signature was verified.
   * @param now milliseconds, on one clock throughout
   * @returns `old` when the service has said something since (or this was heard before), `full` when there is no room for it
   */
  take(beat: Heartbeat, now: number): "taken" | "old" | "full" {
    const before = this.#heard.get(beat.url);
    if (before && before.beat.sent_at >= beat.sent_at) return "old";
    if (!before) {
      this.#forget(now);
      if (this.#heard.size >= MOST) return "full";
    }
    this.#heard.set(beat.url, { beat, at: now });
    return "taken";
  }

  /** The services that are there. */
  present(now: number): ServiceState[] {
    return [...this.#heard.values()]
      .filter(({ beat, at }) => beat.state === "ready" && now - at <= SILENCE_MS)
      .map(({ beat: { url, region, load, model } }) => ({ url, region, load, model }));
  }

  #forget(now: number): void {
    for (const [url, { at }] of this.#heard) if (now - at > MEMORY_MS) this.#heard.delete(url);
  }
}
