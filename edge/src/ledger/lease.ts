import type { Metered } from "../usage/usage-row.ts";
import type { LeaseOutcome } from "./ledger.ts";
import type { TenantLedger } from "./tenant-ledger.ts";

const TRIES = 3;
const RETRY_MS = 100;

/** The hold of one request, to be ended once. */
export class Lease {
  readonly #ledger: DurableObjectStub<TenantLedger>;
  readonly #id: string;
  #ended = false;

  constructor(ledger: DurableObjectStub<TenantLedger>, id: string) {
    this.#ledger = ledger;
    this.#id = id;
  }

  /**
   * Charges what the answer cost, micro-USD. Never throws: a hold that cannot be ended now expires by itself.
   * @param body the answer, to be kept under the request's idempotency key
   */
  async settle(microUsd: number, metered: Metered, body?: string): Promise<void> {
    await this.#end(() => this.#ledger.settle(this.#id, microUsd, metered, body));
  }

  /** Gives everything back: the request was not served. Never throws. */
  async release(): Promise<void> {
    await this.#end(() => this.#ledger.release(this.#id));
  }

  async #end(call: () => Promise<LeaseOutcome>): Promise<void> {
    if (this.#ended) return;
    this.#ended = true;
    for (let attempt = 1; ; attempt++) {
      try {
        await call();
        return;
      } catch (error) {
        if (attempt === TRIES) {
          console.error(JSON.stringify({ requestId: this.#id, ledger: "not settled", error: String(error) }));
          return;
        }
        await scheduler.wait(RETRY_MS * attempt);
      }
    }
  }
}
