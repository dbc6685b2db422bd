import { distribution, sampleToken } from "./sampler.ts";
import type { Sequence } from "./sequence.ts";
import { type DraftController, drawDraft, verifyGreedy, verifySampled } from "./speculation.ts";
import type { ExitReason } from "./types.ts";

/** Most pending rows of a sequence: with more, its next token goes all the way and takes them along. */
export const MAX_PENDING = 32;

/** What an exit's head says about one row. */
export interface HeadRow {
  token: number;
  confidence: number;
  /** float32 [vocab], where the sequence samples. */
  logits: Float32Array | undefined;
}

/** A decided token. */
export interface Decision {
  token: number;
  layers: number;
  reason: ExitReason;
  confidence: number;
}

/**
 * One sequence's way through the segments in one step. The batch asks at every exit how many of its last rows the head should
 * look at, and hands it what the head said.
 */
export interface Visit {
  readonly sequence: Sequence;
  /** Positions to run in the first segment, exclusive; later segments catch up with it. */
  readonly end: number;
  /** Layers after which the visit is over at the latest. */
  readonly deepest: number;
  rowsAt(depth: number): number;
  /** Takes the heads of the last rows; true when the visit is over. */
  decide(depth: number, heads: readonly HeadRow[]): boolean;
  /** Tokens that the visit decided, in order; empty while a prompt or a draft goes on. */
  readonly decisions: readonly Decision[];
}

/** A chunk of a prompt behind which nothing is decided. */
export class PrefillVisit implements Visit {
  readonly sequence: Sequence;
  readonly end: number;
  readonly deepest: number;
  readonly decisions: readonly Decision[] = [];

  constructor(sequence: Sequence, end: number) {
    this.sequence = sequence;
    this.end = end;
    this.deepest = sequence.request.depth;
  }

  rowsAt(): number {
    return 0;
  }

  decide(): boolean {
    return false;
  }
}

/** One token at the request's depth, or at the first exit that is confident enough. */
export class TokenVisit implements Visit {
  readonly sequence: Sequence;
  readonly end: number;
  readonly deepest: number;
  readonly decisions: Decision[] = [];
  readonly #thresholds: Readonly<Record<number, number>>;
  readonly #early: boolean;

  /** @param early whether exits before the request's depth may decide */
  constructor(sequence: Sequence, end: number, early: boolean) {
    const { depth, policy } = sequence.request;
    this.sequence = sequence;
    this.end = end;
    this.deepest = depth;
    this.#thresholds = policy?.type === "confidence" ? policy.thresholds : {};
    this.#early = early && policy?.type === "confidence" && sequence.earlyExits < MAX_PENDING;
  }

  rowsAt(depth: number): number {
    if (depth === this.deepest) return 1;
    const { minDepth = 0 } = this.sequence.request;
    return this.#early && depth >= minDepth && this.#thresholds[depth] !== undefined ? 1 : 0;
  }

  decide(depth: number, [head]: readonly HeadRow[]): boolean {
    if (!head) return false;
    const target = depth === this.deepest;
    const threshold = this.#thresholds[depth];
    if (!target && !(threshold !== undefined && head.confidence >= threshold)) return false;
    this.sequence.earlyExits = target ? 0 : this.sequence.earlyExits + 1;
    const { sampling, policy } = this.sequence.request;
    const token = head.logits ? sampleToken(head.logits, sampling, this.sequence.generated) : head.token;
    const reason = !target ? "confident" : policy === undefined || policy.type === "fixed" ? "fixed" : "target";
    this.decisions.push({ token, layers: depth, reason, confidence: head.confidence });
    return true;
  }
}

/** Tokens proposed at the draft depth and not verified yet. */
export interface Draft {
  /** Length at which it is verified. */
  length: number;
  tokens: { token: number; distribution: Float64Array | undefined }[];
}

/** One more token of a draft. It is put behind the sequence's tokens, where verification will find it. */
export class DraftVisit implements Visit {
  readonly sequence: Sequence;
  readonly end: number;
  readonly deepest: number;
  readonly decisions: readonly Decision[] = [];
  readonly #draft: Draft;

  constructor(sequence: Sequence, draft: Draft, draftDepth: number) {
    this.sequence = sequence;
    this.end = sequence.tokens.length;
    this.deepest = draftDepth;
    this.#draft = draft;
  }

  rowsAt(depth: number): number {
    return depth === this.deepest ? 1 : 0;
  }

  decide(_depth: number, [head]: readonly HeadRow[]): boolean {
    if (!head) return false;
    const { sequence } = this;
    const { sampling, stopTokenIds } = sequence.request;
    const own = head.logits ? distribution(head.logits, sampling) : undefined;
    const token = own ? drawDraft(own, sampling.seed, sequence.generated) : head.token;
    this.#draft.tokens.push({ token, distribution: own });
    sequence.tokens.push(token);
    // Nothing follows a stop token.
    if (stopTokenIds.includes(token)) this.#draft.length = this.#draft.tokens.length;
    return true;
  }
}

/** The target depth's verdict on a draft: the tokens that stand and one more. */
export class VerifyVisit implements Visit {
  readonly sequence: Sequence;
  readonly end: number;
  readonly deepest: number;
  readonly decisions: Decision[] = [];
  readonly #draft: Draft;
  readonly #controller: DraftController;

  constructor(sequence: Sequence, draft: Draft, controller: DraftController) {
    this.sequence = sequence;
    this.end = sequence.tokens.length;
    this.deepest = sequence.request.depth;
    this.#draft = draft;
    this.#controller = controller;
  }

  rowsAt(depth: number): number {
    return depth === this.deepest ? this.#draft.tokens.length + 1 : 0;
  }

  decide(depth: number, heads: readonly HeadRow[]): boolean {
    const { sequence } = this;
    const { tokens } = this.#draft;
    const { accepted, next } = this.#verdict(heads);
    this.#controller.observe(tokens.length, accepted);
    // The proposed tokens leave; those that stand come back as decisions.
    sequence.rollBack(sequence.tokens.length - tokens.length + accepted);
    sequence.tokens.length -= accepted;
    const decided = [...tokens.slice(0, accepted).map(({ token }) => token), next];
    for (const [i, token] of decided.entries()) {
      this.decisions.push({ token, layers: depth, reason: "verified", confidence: heads[i]?.confidence ?? 0 });
    }
    return true;
  }

  #verdict(heads: readonly HeadRow[]) {
    const { sampling } = this.sequence.request;
    const { tokens } = this.#draft;
    if (sampling.temperature === 0) {
      return verifyGreedy(
        tokens.map(({ token }) => token),
        heads.map(({ token }) => token),
      );
    }
    const target = heads.map(({ logits }) => distribution(logits ?? new Float32Array(0), sampling));
    const draft = tokens.map(({ token, distribution: own }) => ({ token, distribution: own ?? new Float64Array(0) }));
    return verifySampled(draft, target, sampling.seed, this.sequence.generated - tokens.length);
  }
}
