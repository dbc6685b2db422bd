import { ApiError } from "@fathom/shared";
import { toApiError } from "./errors.ts";

/** The ways in which a request ends before its answer does: the client leaves, its time is up, or the edge gives up. */
export class RequestEnd {
  /** Aborted when the client is gone. */
  readonly client: AbortSignal;
  /** Aborted by any of the three. */
  readonly signal: AbortSignal;
  readonly #deadline = new AbortController();
  readonly #abandoned = new AbortController();
  readonly #timer: ReturnType<typeof setTimeout>;
  #cleanUp: (() => void) | undefined;

  constructor(client: AbortSignal, timeoutMs: number) {
    this.client = client;
    this.signal = AbortSignal.any([client, this.deadline, this.#abandoned.signal]);
    this.#timer = setTimeout(() => this.#deadline.abort(), timeoutMs);
  }

  /** Aborted when the time is up. */
  get deadline(): AbortSignal {
    return this.#deadline.signal;
  }

  /** Stops the service's work. */
  abandon(): void {
    this.#abandoned.abort();
  }

  /** Sets what is to be done once nothing is going on any more. */
  finallyDo(cleanUp: () => void): void {
    this.#cleanUp = cleanUp;
  }

  /** Nothing is going on any more: the clock may stop. */
  close(): void {
    clearTimeout(this.#timer);
    this.#cleanUp?.();
    this.#cleanUp = undefined;
  }

  /** What the client is told when the request ended with `error`. */
  explain(error: unknown): ApiError {
    if (this.client.aborted) return new ApiError("cancelled", "The request was cancelled.", { cause: error });
    if (this.deadline.aborted) return new ApiError("timeout", "The answer took too long.", { cause: error });
    return toApiError(error);
  }
}
