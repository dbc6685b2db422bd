import { withoutSecrets } from "../auth/api-key.ts";

/** What may stand in the log: figures and names, never a prompt, an answer, a key or a secret. */
export interface RequestFacts {
  status?: number;
  tenant?: string;
  plan?: string;
  model?: string;
  service?: string;
  depth?: number;
  reason?: string;
  stream?: boolean;
  /** Code of the error that the client saw. */
  error?: string;
  /** How an answer ended that did not end by itself. */
  cut?: string;
  /** Id of the request whose answer was given again. */
  replayOf?: string;
  layerTokens?: number;
  microUsd?: number;
}

/** Collects the facts of one request and writes them as one line of JSON when everything is known. */
export class RequestLog {
  readonly #started = Date.now();
  readonly #line: Record<string, unknown>;
  #deferred = false;

  constructor(requestId: string, method: string, path: string) {
    // Some send their key in the wrong place.
    this.#line = { requestId, method, path: withoutSecrets(path) };
  }

  add(facts: RequestFacts): void {
    Object.assign(this.#line, facts);
  }

  /** The answer goes on after its handler: whoever ends it calls `write`. */
  defer(): void {
    this.#deferred = true;
  }

  get deferred(): boolean {
    return this.#deferred;
  }

  write(): void {
    console.log(JSON.stringify({ ...this.#line, ms: Date.now() - this.#started }));
  }
}
