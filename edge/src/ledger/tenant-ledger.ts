import { DurableObject } from "cloudflare:workers";
import { type LeaseOutcome, Ledger, type ReserveRequest, type ReserveResult, type Usage } from "./ledger.ts";

/** The ledger of one tenant, reached by the tenant's name. See {@link Ledger} for what its calls mean. */
export class TenantLedger extends DurableObject<Env> {
  readonly #ledger: Ledger;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#ledger = new Ledger(ctx.storage);
  }

  async reserve(request: ReserveRequest): Promise<ReserveResult> {
    const now = Date.now();
    const result = this.#ledger.reserve(request, now);
    if ("granted" in result) await this.#wakeBy(now + request.leaseMs);
    return result;
  }

  settle(id: string, microUsd: number): LeaseOutcome {
    return this.#ledger.settle(id, microUsd);
  }

  release(id: string): LeaseOutcome {
    return this.#ledger.release(id);
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
