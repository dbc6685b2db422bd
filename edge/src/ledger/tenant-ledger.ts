import { DurableObject } from "cloudflare:workers";
import { flushOutbox } from "../usage/flush-outbox.ts";
import type { Metered, UsageRow } from "../usage/usage-row.ts";
import { Access, type AccessChange, type AccessRefusal, type AccessState } from "./access.ts";
import { Borrower } from "./borrower.ts";
import { readFact, writeFact } from "./facts.ts";
import type { IdempotentRequest, KeyState } from "./kept-answers.ts";
import {
  type DayAccount,
  type LeaseOutcome,
  Ledger,
  type Limits,
  type ReserveRequest,
  type ReserveResult,
  type Short,
  type Usage,
} from "./ledger.ts";
import { Lender } from "./lender.ts";
import type { DrawReply, DrawRequest, ReturnReport, WindowReport } from "./lending.ts";
import { COPIES_KEPT_MS } from "./outbox.ts";
import { type Shard, shardLimits, shardName } from "./shard.ts";
import { Turns } from "./turns.ts";
import { dayOf, monthOf } from "./windows.ts";

/** How long usage rows wait for others to be sent with them, milliseconds. */
const FLUSH_MS = 1000;

/** How long to wait after what could not be sent, milliseconds. */
const RETRY_MS = 5000;

/** How long a shard keeps budget that it does not use, milliseconds. */
export const IDLE_MS = 30_000;

/** How often a shard asks for budget that others take away again, before it makes do with what it holds. */
const MAX_DRAWS = 20;

/** Usage rows in one answer to the reconciliation. */
const COPIES_PER_PAGE = 1000;

/**
 * The ledger of one tenant, reached by the tenant's name, or a shard of it, which borrows its budget from there. See
 * {@link Ledger} for what its calls mean.
 */
export class TenantLedger extends DurableObject<Env> {
  readonly #ledger: Ledger;
  readonly #access: Access;
  readonly #lender: Lender;
  readonly #borrower: Borrower;
  /** A shard asks for one request at a time, the lender answers one shard at a time. */
  readonly #draws = new Turns();
  /** In a shard: decides the request that budget is being drawn for, if that is there by now. */
  #decideDrawn: (() => void) | undefined;
  /** In a shard: what nobody held when the lender was last asked, micro-USD of the month. */
  #elsewhere: number | undefined;
  #lastUsed = 0;
  /** In a shard: requests that have waited for budget so far. */
  #arrivals = 0;
  /** In a shard: the last draw that found nothing more was made for the requests up to `arrivals` too. */
  #dry: { arrivals: number; givenBack: number } | undefined;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#ledger = new Ledger(ctx.storage);
    this.#access = new Access(ctx.storage);
    this.#lender = new Lender(ctx.storage);
    this.#borrower = new Borrower(ctx.storage, this.#ledger);
  }

  async reserve(asked: ReserveRequest, shard?: Shard): Promise<ReserveResult | AccessRefusal> {
    if (shard) await this.#followAccess(shard);
    const barred = this.#access.refusal(asked.holder.key_id);
    if (barred) return barred;
    const request = this.#access.withOwnBudget(asked);
    const result = shard ? await this.#reserveInShard(request, shard) : await this.#reserveHere(request);
    const now = Date.now();
    this.#lastUsed = now;
    if ("granted" in result) await this.#wakeBy(now + request.leaseMs);
    else if (!this.#ledger.outbox.isEmpty) await this.#wakeBy(now + FLUSH_MS);
    return result;
  }

  /** What is known of an idempotency key; a key that may not be used is told nothing. */
  async findAnswer(request: IdempotentRequest, keyId: string, shard?: Shard): Promise<KeyState | AccessRefusal> {
    if (shard) await this.#followAccess(shard);
    return this.#access.refusal(keyId) ?? this.#ledger.findAnswer(request, Date.now());
  }

  async settle(id: string, microUsd: number, metered: Metered, body?: string): Promise<LeaseOutcome> {
    const now = Date.now();
    const outcome = this.#ledger.settle(id, microUsd, metered, now, body);
    await this.#wakeBy(now + FLUSH_MS);
    return outcome;
  }

  release(id: string): LeaseOutcome {
    return this.#ledger.release(id);
  }

  /** Why a key may not be used, or undefined when it may. */
  barred(keyId: string): AccessRefusal | undefined {
    return this.#access.refusal(keyId);
  }

  /** Changes who may use the account, here and in every shard that there has been. @throws when one cannot be told. */
  async changeAccess(change: AccessChange): Promise<void> {
    this.#access.change(change);
    await this.#tellFollowers(this.#access.state());
  }

  /** A shard asks who may use the account, and is told of every change from then on. */
  follow(shard: string): AccessState {
    this.#access.follow(shard);
    return this.#access.state();
  }

  /** In a shard: takes over what the tenant's ledger says. */
  takeAccess(state: AccessState): void {
    this.#access.take(state);
  }

  /** Of the tenant, with all shards. */
  async usage(): Promise<Usage> {
    const now = Date.now();
    const own = this.#ledger.usage(now);
    const shards = await Promise.all(
      this.#lender.borrowers(own.month).map(({ child }) => this.#ledgerOf(child).usage()),
    );
    return shards.reduce(addUsage, own);
  }

  /** Micro-USD that are neither charged nor held, of the month or of the day, whichever has less; the tenant's own budget counts. */
  async remaining(limits: Limits): Promise<number> {
    const { settled, reserved, today } = await this.usage();
    const { monthlyBudget, dailyBudget = Number.POSITIVE_INFINITY } = this.#access.withOwnBudget({ limits }).limits;
    return Math.max(0, Math.min(monthlyBudget - settled - reserved, dailyBudget - today.settled - today.reserved));
  }

  dayAccount(day: string): DayAccount {
    return this.#ledger.dayAccount(day);
  }

  /** Copies of a day's usage rows, by request id. @param after the last id of the page before, or "" */
  copies(day: string, after: string): UsageRow[] {
    return this.#ledger.outbox.copies(day, after, COPIES_PER_PAGE);
  }

  /** A shard asks for budget: what is free, then what the other shards hold without using it. */
  async draw(request: DrawRequest): Promise<DrawReply> {
    const reply = await this.#draws.run(async () => {
      const lend = (rest: boolean): string[] =>
        this.#lender.lend(request, (window) => this.#ledger.committedIn(window), rest);
      let unmet = lend(false);
      if (unmet.length > 0) {
        await this.#collect(unmet, request.child);
        unmet = lend(true);
      }
      const { month, monthlyBudget } = request;
      return {
        windows: request.windows.map(({ window }) => ({
          window,
          granted: this.#lender.granted(request.child, window),
        })),
        free: monthlyBudget - this.#ledger.committedIn(month) - this.#lender.lentIn(month),
        dry: unmet.length > 0,
      };
    });
    await this.#tellThresholds(request);
    return reply;
  }

  /** The lender takes back what this shard does not use. */
  recall(windows: readonly { window: string; granted: number }[]): WindowReport[] {
    for (const { window, granted } of windows) this.#borrower.receive(window, granted);
    // A grant that the recall has overtaken is for a request that waits here.
    this.#decideDrawn?.();
    return windows.map(({ window }) => {
      this.#borrower.giveBackIdle(window);
      return this.#borrower.report(window);
    });
  }

  /** A shard tells what it gave back by itself, and what it has charged. */
  async hearReturn(report: ReturnReport): Promise<void> {
    for (const window of report.windows) this.#lender.hear(report.child, window);
    await this.#tellThresholds(report);
  }

  override async alarm(): Promise<void> {
    const now = Date.now();
    this.#ledger.expire(now);
    this.#ledger.prune(now);
    const firstDay = dayOf(now - COPIES_KEPT_MS);
    this.#lender.prune(firstDay);
    this.#borrower.prune(firstDay);
    const done = await this.#send(now);
    const due = this.#ledger.nextDue();
    if (!done) await this.#wakeBy(now + RETRY_MS);
    if (due !== undefined) await this.#wakeBy(Math.max(due, now + FLUSH_MS));
  }

  async #reserveHere(request: ReserveRequest): Promise<ReserveResult> {
    const now = Date.now();
    const lent = { month: this.#lender.lentIn(monthOf(now)), day: this.#lender.lentIn(dayOf(now)) };
    if (lent.month === 0 && lent.day === 0) return this.#ledger.reserve(request, now);
    // The plan had shards, or another key's plan has.
    const first = this.#ledger.reserve(request, now, { lent, elsewhere: lent.month });
    if (!("short" in first)) return first;
    return await this.#draws.run(async () => {
      const [month, day] = [monthOf(now), dayOf(now)];
      await this.#collect([month, day], undefined);
      const left = { month: this.#lender.lentIn(month), day: this.#lender.lentIn(day) };
      return this.#ledger.reserve(request, now, { lent: left });
    });
  }

  async #reserveInShard(whole: ReserveRequest, shard: Shard): Promise<ReserveResult> {
    const { monthlyBudget } = whole.limits;
    const request = { ...whole, limits: shardLimits(whole.limits, shard) };
    this.#elsewhere ??= monthlyBudget;
    const attempt = (elsewhere: number): ReserveResult | Short => {
      const now = Date.now();
      return this.#ledger.reserve(request, now, { ...this.#borrower.sharing(request.limits, now), elsewhere });
    };
    const first = attempt(this.#elsewhere);
    if (!("short" in first)) return first;
    writeFact(this.ctx.storage.sql, "shard", { ...shard, monthlyBudget });
    const arrival = ++this.#arrivals;
    const makeDo = (): ReserveResult => {
      const now = Date.now();
      return this.#ledger.reserve(request, now, this.#borrower.sharing(request.limits, now));
    };
    return await this.#draws.run(async () => {
      for (let draws = 0; draws < MAX_DRAWS; draws++) {
        const again = attempt(this.#elsewhere ?? monthlyBudget);
        if (!("short" in again)) return again;
        const before = this.#borrower.givenBack();
        // Everything there was came here while this request was waiting: asking again would find no more.
        if (this.#dry && arrival <= this.#dry.arrivals && before === this.#dry.givenBack) return makeDo();
        const arrivals = this.#arrivals;
        const dry = await this.#drawFor(request, shard, again.need, () => {
          attempt(this.#elsewhere ?? 0);
        });
        if (!dry) continue;
        const last = makeDo();
        // What was taken away meanwhile may be free again.
        const taken = this.#borrower.givenBack() !== before;
        if (!taken) this.#dry = { arrivals, givenBack: before };
        if (!("refused" in last && last.refused === "budget" && taken)) return last;
      }
      return makeDo();
    });
  }

  /** @returns whether there is no more to be had. */
  async #drawFor(request: ReserveRequest, shard: Shard, need: number, decide: () => void): Promise<boolean> {
    const now = Date.now();
    this.#decideDrawn = decide;
    try {
      const asked = this.#borrower.drawRequest(shard, request.limits, need, now);
      const { windows, free, dry } = await this.#ledgerOf(shard.tenant).draw(asked);
      for (const { window, granted } of windows) this.#borrower.receive(window, granted);
      this.#elsewhere = Math.max(0, free);
      await this.#wakeBy(now + IDLE_MS);
      return dry;
    } finally {
      this.#decideDrawn = undefined;
    }
  }

  /** Takes back what shards hold without using it. One that does not answer keeps what it holds. */
  async #collect(windows: readonly string[], except: string | undefined): Promise<void> {
    const granted = new Map<string, { window: string; granted: number }[]>();
    for (const window of windows) {
      for (const borrower of this.#lender.borrowers(window)) {
        if (borrower.child === except) continue;
        const list = granted.get(borrower.child) ?? [];
        granted.set(borrower.child, [...list, { window, granted: borrower.granted }]);
      }
    }
    await Promise.all(
      [...granted].map(async ([child, list]) => {
        try {
          for (const report of await this.#ledgerOf(child).recall(list)) this.#lender.hear(child, report);
        } catch (error) {
          console.error(JSON.stringify({ ledger: child, recall: String(error) }));
        }
      }),
    );
  }

  /** Sends what waits. @returns whether everything is said. */
  async #send(now: number): Promise<boolean> {
    try {
      await this.#returnIdle(now);
      await flushOutbox(this.#ledger.outbox, this.ctx.storage.sql, this.env);
      return true;
    } catch (error) {
      console.error(JSON.stringify({ ledger: this.ctx.id.toString(), notSent: String(error) }));
      return false;
    }
  }

  /** In a shard: returns what was not used for a while, and says what was charged. */
  async #returnIdle(now: number): Promise<void> {
    const fact = readFact(this.ctx.storage.sql, "shard");
    if (!fact) return;
    const { monthlyBudget, ...shard } = fact;
    const windows = [monthOf(now), dayOf(now)];
    if (now - this.#lastUsed >= IDLE_MS) for (const window of windows) this.#borrower.giveBackIdle(window);
    else await this.#wakeBy(this.#lastUsed + IDLE_MS);
    await this.#ledgerOf(shard.tenant).hearReturn({
      tenant: shard.tenant,
      child: `${shard.tenant}/${shard.index}`,
      month: monthOf(now),
      monthlyBudget,
      windows: windows.map((window) => this.#borrower.report(window)),
    });
  }

  async #tellThresholds({ tenant, month, monthlyBudget }: ReturnReport | DrawRequest): Promise<void> {
    const settled = this.#ledger.settledIn(month) + this.#lender.settledIn(month);
    this.#ledger.tellThresholds(tenant, month, settled, monthlyBudget);
    if (!this.#ledger.outbox.isEmpty) await this.#wakeBy(Date.now() + FLUSH_MS);
  }

  /** In a shard that is used for the first time: it must not let in whom the tenant's ledger has barred. */
  async #followAccess(shard: Shard): Promise<void> {
    if (this.#access.isTold) return;
    this.#access.take(await this.#ledgerOf(shard.tenant).follow(shardName(shard)));
  }

  async #tellFollowers(state: AccessState): Promise<void> {
    await Promise.all(this.#access.followers().map((shard) => this.#ledgerOf(shard).takeAccess(state)));
  }

  #ledgerOf(name: string): DurableObjectStub<TenantLedger> {
    return this.env.LEDGER.getByName(name);
  }

  async #wakeBy(due: number): Promise<void> {
    const set = await this.ctx.storage.getAlarm();
    if (set === null || set > due) await this.ctx.storage.setAlarm(due);
  }
}

function addUsage(sum: Usage, part: Usage): Usage {
  return {
    month: sum.month,
    settled: sum.settled + part.settled,
    reserved: sum.reserved + part.reserved,
    inFlight: sum.inFlight + part.inFlight,
    today: {
      settled: sum.today.settled + part.today.settled,
      reserved: sum.today.reserved + part.today.reserved,
    },
  };
}
