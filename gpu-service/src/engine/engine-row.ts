import type { CostModel } from "./cost-model.ts";
import type { Sequence } from "./sequence.ts";
import { DraftController } from "./speculation.ts";
import type { EngineAccount, EngineTiming } from "./types.ts";
import { type Draft, DraftVisit, TokenVisit, VerifyVisit, type Visit } from "./visit.ts";

/** Milliseconds on the clock that host and worker share. */
export function now(): number {
  return performance.timeOrigin + performance.now();
}

/** A live request: its sequence, its draft, and when what happened. */
export class EngineRow {
  readonly sequence: Sequence;
  readonly submittedAt: number;
  /** When the request's own time is up. */
  readonly deadline: number;
  readonly #controller: DraftController | undefined;
  readonly #draftDepth: number;
  /** Undefined: the controller's choice. */
  readonly #draftLength: number | undefined;
  #draft: Draft | undefined;
  startedAt: number | undefined;
  prefilledAt: number | undefined;
  firstTokenAt: number | undefined;
  lastTokenAt: number | undefined;
  cachedTokens = 0;
  preemptions = 0;

  constructor(sequence: Sequence, submittedAt: number) {
    const { request } = sequence;
    this.sequence = sequence;
    this.submittedAt = submittedAt;
    this.deadline = submittedAt + (request.timeoutMs ?? Number.POSITIVE_INFINITY);
    const { policy } = request;
    this.#draftDepth = policy?.type === "speculative" ? policy.draftDepth : 0;
    this.#draftLength = policy?.type === "speculative" ? policy.draftLength : undefined;
    if (policy?.type === "speculative") {
      this.#controller = new DraftController({ draftDepth: policy.draftDepth, depth: request.depth });
    }
  }

  /** Tokens that were confirmed: without a draft's. */
  get length(): number {
    return this.sequence.tokens.length - (this.#draft?.tokens.length ?? 0);
  }

  /** What the row does in a decoding step. @param live rows that decode in it */
  visit(live: number, cost: CostModel): Visit {
    const { sequence } = this;
    const controller = this.#controller;
    if (controller) {
      // A draft that may not be longer than what is still wanted, nor lose its last token to the limit.
      const room = sequence.request.maxTokens - (this.length - sequence.request.prompt.length) - 1;
      this.#draft ??= { length: Math.min(room, this.#draftLength ?? controller.next(live, cost)), tokens: [] };
      const draft = this.#draft;
      if (draft.tokens.length < draft.length) return new DraftVisit(sequence, draft, this.#draftDepth);
      this.#draft = undefined;
      if (draft.tokens.length > 0) return new VerifyVisit(sequence, draft, controller);
    }
    return new TokenVisit(sequence, sequence.tokens.length, true);
  }

  /** Gives up the K/V, and a draft that was not verified. */
  preempt(): void {
    this.sequence.rollBack(this.length);
    this.#draft = undefined;
    this.sequence.restart(0);
    this.preemptions++;
  }

  timing(end: number): EngineTiming {
    const started = this.startedAt ?? end;
    const first = this.firstTokenAt ?? end;
    return {
      queueMs: started - this.submittedAt,
      prefillMs: (this.prefilledAt ?? end) - started,
      timeToFirstTokenMs: first - this.submittedAt,
      decodeMs: (this.lastTokenAt ?? first) - first,
      totalMs: end - this.submittedAt,
    };
  }

  account(): EngineAccount {
    const account = {
      promptDepth: this.sequence.request.depth,
      cachedTokens: this.cachedTokens,
      preemptions: this.preemptions,
    };
    if (!this.#controller) return account;
    const { proposed, accepted } = this.#controller;
    return { ...account, draft: { depth: this.#draftDepth, proposed, accepted } };
  }
}
