import { setTimeout as sleep } from "node:timers/promises";

/** How requests are paced. */
export interface Pace {
  /**
   * Open loop: when each is meant to be sent, ascending milliseconds after the start. Undefined: closed loop, where a
   * request is sent when an earlier one ends.
   */
  arrivals: readonly number[] | undefined;
  /** Most requests in flight. In an open loop it makes the later ones late; Infinity does not. */
  concurrency: number;
  /** Requests to send. */
  count: number;
  /** After this time none is sent any more, milliseconds; those in flight end. */
  maxMs: number;
}

export interface LoadOutcome<T> {
  /** In the order in which they ended. */
  results: T[];
  /** From the start to the end of the last request, milliseconds. */
  durationMs: number;
  /** Requests of an open loop whose time had come and that were not sent when sending stopped. */
  overdue: number;
}

/**
 * Sends requests at their pace and waits for their ends.
 * @param send sends request `index`, which was meant for `intendedAt` (`performance.now()`); must not reject
 * @param signal stops the sending; `send` has to end what is in flight
 */
export async function runLoad<T>(
  { arrivals, concurrency, count, maxMs }: Pace,
  send: (index: number, intendedAt: number) => Promise<T>,
  signal: AbortSignal,
): Promise<LoadOutcome<T>> {
  const results: T[] = [];
  const inFlight = new Set<Promise<void>>();
  let wake: () => void = () => {};
  const startedAt = performance.now();
  const endsAt = startedAt + maxMs;
  const timer = new AbortController();
  const stop = AbortSignal.any([signal, timer.signal]);
  // Not AbortSignal.timeout: it takes no Infinity.
  const timeout = Number.isFinite(maxMs) ? setTimeout(() => timer.abort(), maxMs) : undefined;
  stop.addEventListener("abort", () => wake(), { once: true });
  let sent = 0;
  while (sent < count) {
    const arrival = arrivals?.[sent];
    if (arrival !== undefined) await waitUntil(startedAt + arrival, stop);
    while (inFlight.size >= concurrency && !stop.aborted) {
      await new Promise<void>((resolve) => {
        wake = resolve;
      });
    }
    const now = performance.now();
    if (stop.aborted || now >= endsAt) break;
    const request: Promise<void> = send(sent, arrival === undefined ? now : startedAt + arrival).then((result) => {
      results.push(result);
      inFlight.delete(request);
      wake();
    });
    inFlight.add(request);
    sent += 1;
  }
  const stoppedAt = Math.min(performance.now(), endsAt) - startedAt;
  clearTimeout(timeout);
  await Promise.all(inFlight);
  return {
    results,
    durationMs: performance.now() - startedAt,
    overdue: arrivals?.slice(sent).filter((arrival) => arrival < stoppedAt).length ?? 0,
  };
}

/** Timers may fire a little early, and never more precisely than a millisecond. */
async function waitUntil(time: number, stop: AbortSignal): Promise<void> {
  while (!stop.aborted) {
    const left = time - performance.now();
    if (left <= 0) return;
    await sleep(Math.min(Math.ceil(left), 2 ** 31 - 1), undefined, { signal: stop }).catch(() => {});
  }
}
