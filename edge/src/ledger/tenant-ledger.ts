import { DurableObject } from "cloudflare:workers";
import { Access, type AccessChange, type AccessRefusal } from "./access.ts";
import { type LeaseOutcome, Ledger, type ReserveRequest, type ReserveResult, type Usage } from "./ledger.ts";

/** The ledger of one tenant, reached by the tenant's name. See {@link Ledger} for what its calls mean. */
export class TenantLedger extends DurableObject<Env> {
  readonly #ledger: Ledger;
  readonly #access: Access;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#ledger = new Ledger(ctx.storage);
    this.#access = new Access(ctx.storage);
  }

  /** @param keyId public id of the key that asks */
  async reserve(request: ReserveRequest, keyId: string): Promise<ReserveResult | AccessRefusal> {
    const barred = this.#access.refusal(keyId);
    if (barred) return barred;
    const now = Date.now();
    const result = this.#ledger.reserve(this.#access.withOwnBudget(request), now);
    if ("granted" in result) await this.#wakeBy(now + request.leaseMs);
    return result;
  }

  settle(id: string, microUsd: number): LeaseOutcome {
    return this.#ledger.settle(id, microUsd);
  }

  release(id: string): LeaseOutcome {
    return this.#ledger.release(id);
  }

  /** Why a key may not be used, or undefined when it may. */
  barred(keyId: string): AccessRefusal | undefined {
    return this.#access.refusal(keyId);
  }

  changeAccess(change: AccessChange): void {
    this.#access.change(change);
  }

  usage(): Usage {
    return this.#ledger.usage(Date.now());
  }

  override async alarm(): Promise<void> {
    const now = Date.now();
    this.#ledger.expire(now);
    this.#ledger.prune(now);
    const due = this.#ledger.nextDue();
    if (due !== undefined) await this.#wakeBy(due);
  }

  async #wakeBy(due: number): Promise<void> {
    const set = await this.ctx.storage.getAlarm();
    if (set === null || set > due) await this.ctx.storage.setAlarm(due);
  }
}
