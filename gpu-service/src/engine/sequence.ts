import { RowBuffer } from "./row-buffer.ts";
import type { EngineRequest } from "./types.ts";

/**
 * The tokens of one request and how far each segment has run them. A token that is decided at an exit stays behind there: its
 * residual stream is a pending row of the next segment, until a later token needs to go deeper; then all pending rows go
 * through together, so that K/V is never approximated.
 */
export class Sequence {
  readonly request: EngineRequest;
  readonly id: string;
  /** Prompt and answer; behind `length` there may be tokens that are only proposed. */
  readonly tokens: number[];
  /** By segment: positions whose K/V is computed; never rises from one segment to the next. */
  readonly #computed: number[];
  /**
   * Tokens decided early since the last one that went all the way: the pending rows as they would be without preemptions, which
   * compute them.
   */
  earlyExits = 0;
  /** By segment: the residual stream of the positions that the segment before has run and it has not. */
  readonly #pending: RowBuffer[];

  /**
   * @param segments segments up to the request's depth
   * @param width hidden size
   */
  constructor(request: EngineRequest, segments: number, width: number) {
    this.request = request;
    this.id = request.id;
    this.tokens = [...request.prompt];
    this.#computed = Array.from({ length: segments }, () => 0);
    this.#pending = Array.from({ length: segments }, () => new RowBuffer(width));
  }

  /** Generated tokens. */
  get generated(): number {
    return this.tokens.length - this.request.prompt.length;
  }

  /** Positions computed in a segment. */
  computed(segment: number): number {
    return this.#computed[segment] ?? 0;
  }

  /** Positions computed in the first segment but not in the last. */
  get pendingRows(): number {
    return this.computed(0) - this.computed(this.#computed.length - 1);
  }

  /** What a segment has to run next, so that it has run as many positions as the segment before; `end` bounds the first one. */
  next(segment: number, end: number): { from: number; input: readonly number[] | Float32Array } {
    const from = this.computed(segment);
    if (segment === 0) return { from, input: this.tokens.slice(from, end) };
    return { from, input: this.#buffer(segment).values };
  }

  /** Takes what a segment made of the `count` positions that it ran. */
  ran(segment: number, count: number, hidden: Float32Array): void {
    this.#computed[segment] = this.computed(segment) + count;
    this.#buffer(segment).truncate(0);
    const following = this.#pending[segment + 1];
    following?.push(hidden);
  }

  /** Forgets everything behind the first `length` positions. */
  rollBack(length: number): void {
    this.tokens.length = length;
    for (const [segment, computed] of this.#computed.entries()) {
      if (segment > 0) this.#buffer(segment).truncate(length - computed);
      this.#computed[segment] = Math.min(computed, length);
    }
  }

  /** Says that the K/V of the first `length` positions is there in every segment, and nothing behind them. */
  restart(length: number): void {
    this.#computed.fill(length);
    for (const buffer of this.#pending) buffer.truncate(0);
  }

  #buffer(segment: number): RowBuffer {
    const buffer = this.#pending[segment];
    if (!buffer) throw new RangeError(`sequence '${this.id}' does not run segment ${segment}`);
    return buffer;
  }
}
