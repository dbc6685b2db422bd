import { ApiError } from "@fathom/shared";
import type { EngineLoad } from "../engine/types.ts";
import type { ServedModel } from "../text/served-model.ts";

/** How long a refused client should wait, seconds. */
const RETRY_AFTER = 5;

export type Phase = "loading" | "ready" | "draining";

/** A request that is being answered. */
export interface LiveRequest {
  /** Aborted when the client goes away or the service must end. */
  signal: AbortSignal;
  /** The client does not want the rest. @param reason what the log says of it */
  abandon(reason?: ApiError): void;
  /** To be called once, when nothing more will be generated. */
  end(): void;
}

/** What the routes share: the model once it is loaded, the phase, and the requests being answered. */
export class Service {
  readonly #live = new Set<AbortController>();
  #model: ServedModel | undefined;
  #draining = false;
  #idle: PromiseWithResolvers<void> | undefined;

  get phase(): Phase {
    if (this.#draining) return "draining";
    return this.#model ? "ready" : "loading";
  }

  /** Hands over the loaded model: from now on requests are answered. */
  ready(model: ServedModel): void {
    this.#model = model;
  }

  /** Requests running and waiting in the engine. */
  load(): EngineLoad {
    return this.#model?.engine.load() ?? { running: 0, waiting: 0 };
  }

  /** The model, if it is loaded. */
  loaded(): ServedModel | undefined {
    return this.#model;
  }

  /** The model, to describe it. @throws ApiError `upstream_unavailable` while it loads. */
  model(): ServedModel {
    if (this.#model) return this.#model;
    throw new ApiError("upstream_unavailable", "The model is still being loaded.", { retryAfter: RETRY_AFTER });
  }

  /** The model, to run a request. @throws ApiError `upstream_unavailable` while it loads, `draining`. */
  openModel(): ServedModel {
    if (this.#draining) throw draining("The service is shutting down.");
    return this.model();
  }

  /** Registers a request, so that draining waits for it. */
  begin(client: AbortSignal): LiveRequest {
    const controller = new AbortController();
    this.#live.add(controller);
    return {
      signal: AbortSignal.any([client, controller.signal]),
      abandon: (reason) => controller.abort(reason),
      end: () => {
        this.#live.delete(controller);
        if (this.#live.size === 0) this.#idle?.resolve();
      },
    };
  }

  /**
   * Refuses new requests and waits until those being answered are done, or are cut off after `timeoutMs`.
   * @returns requests that were cut off
   */
  async drain(timeoutMs: number): Promise<number> {
    this.#draining = true;
    if (this.#live.size === 0) return 0;
    this.#idle = Promise.withResolvers();
    const timer = Promise.withResolvers<void>();
    const timeout = setTimeout(timer.resolve, timeoutMs);
    await Promise.race([this.#idle.promise, timer.promise]);
    clearTimeout(timeout);
    const cut = this.#live.size;
    for (const controller of this.#live) {
      controller.abort(draining("The service shut down before the answer was complete."));
    }
    if (cut > 0) await this.#idle.promise;
    return cut;
  }
}

function draining(message: string): ApiError {
  return new ApiError("draining", message, { retryAfter: RETRY_AFTER });
}
