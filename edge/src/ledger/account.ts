import { ApiError } from "@fathom/shared";
import type { Holder } from "../usage/usage-row.ts";
import type { AccessRefusal } from "./access.ts";
import type { IdempotentRequest, KeyState } from "./kept-answers.ts";
import { Lease } from "./lease.ts";
import type { LeaseOutcome, ReserveRequest, ReserveResult } from "./ledger.ts";
import { type Shard, shardName } from "./shard.ts";
import type { TenantLedger } from "./tenant-ledger.ts";

/** What is to be reserved; the ledger that does it is the account's choice. */
export type AccountRequest = Omit<ReserveRequest, "holder"> & { holder: Omit<Holder, "ledger"> };

/** A tenant's account: one ledger, or several shards. */
export class Account {
  readonly #ledgers: DurableObjectNamespace<TenantLedger>;
  readonly #tenant: string;
  readonly #shards: number;

  constructor(ledgers: DurableObjectNamespace<TenantLedger>, tenant: string, shards: number) {
    this.#ledgers = ledgers;
    this.#tenant = tenant;
    this.#shards = shards;
  }

  /** What is known of an idempotency key; a key that may not be used is told nothing. */
  async findAnswer(request: IdempotentRequest, keyId: string): Promise<KeyState | AccessRefusal> {
    const index = this.#shardOf(request.key);
    return await this.#ledgers.getByName(this.#nameOf(index)).findAnswer(request, keyId, this.#shardAt(index));
  }

  /**
   * Reserves at one shard; at the next if that one's part of the rate or of the concurrency is used up. A request with an
   * idempotency key is always its shard's.
   * @param outlive keeps work going that nobody waits for
   * @throws ApiError `upstream_unavailable` when the ledger cannot be reached; what it may have reserved is released.
   */
  async reserve(
    request: AccountRequest,
    outlive: (work: Promise<void>) => void,
  ): Promise<{ result: ReserveResult | AccessRefusal; lease: Lease }> {
    const { id, idempotent } = request;
    const first = this.#shardOf(idempotent?.key ?? id);
    const tries = idempotent ? 1 : this.#shards;
    for (let i = 0; ; i++) {
      const index = (first + i) % this.#shards;
      const name = this.#nameOf(index);
      const ledger = this.#ledgers.getByName(name);
      const lease = new Lease(ledger, id);
      const holder = { ...request.holder, ledger: name };
      const reserve = async (): Promise<ReserveResult | AccessRefusal> =>
        await ledger.reserve({ ...request, holder }, this.#shardAt(index));
      const result = await reserve().catch((cause: unknown) => {
        outlive(lease.release());
        throw new ApiError("upstream_unavailable", "The account cannot be reached.", { retryAfter: 2, cause });
      });
      const full = "refused" in result && (result.refused === "rate" || result.refused === "concurrency");
      if (!full || i + 1 === tries) return { result, lease };
    }
  }

  /** Ends the hold of a request that was not served, at whichever shard it lies. */
  async release(id: string): Promise<LeaseOutcome> {
    const first = this.#shardOf(id);
    for (let i = 0; ; i++) {
      const outcome = await this.#ledgers.getByName(this.#nameOf((first + i) % this.#shards)).release(id);
      if (outcome.state !== "unknown" || i + 1 === this.#shards) return outcome;
    }
  }

  #nameOf(index: number): string {
    const shard = this.#shardAt(index);
    return shard ? shardName(shard) : this.#tenant;
  }

  /** Undefined when one ledger is all there is. */
  #shardAt(index: number): Shard | undefined {
    return this.#shards === 1 ? undefined : { tenant: this.#tenant, index, of: this.#shards };
  }

  /** FNV-1a: spreads ids and keys evenly, always in the same way. */
  #shardOf(text: string): number {
    let hash = 0x811c9dc5;
    for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193);
    return (hash >>> 0) % this.#shards;
  }
}
