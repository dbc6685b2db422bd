/** Tokens that are remembered at most: more than a service answers in the lifetime of one. */
const MOST = 200_000;

/** Remembers the ids of tokens for as long as they could be shown again. */
export class UsedTokens {
  readonly #until = new Map<string, number>();
  readonly #most: number;

  constructor(most = MOST) {
    this.#most = most;
  }

  /**
   * Takes a token's id.
   * @param until when it need not be remembered any more, on the clock of `now`
   * @returns `replayed` when it was taken before; `full` when no more can be remembered, so that it must not be accepted
   */
  take(id: string, until: number, now: number): "taken" | "replayed" | "full" {
    const known = this.#until.get(id);
    if (known !== undefined && known > now) return "replayed";
    // Its place in the order is that of its new end.
    this.#until.delete(id);
    this.#forget(now);
    if (this.#until.size >= this.#most) return "full";
    this.#until.set(id, until);
    return "taken";
  }

  /** Tokens live about equally long, so that the oldest are the first to go; one that lives longer holds up those behind it. */
  #forget(now: number): void {
    for (const [id, until] of this.#until) {
      if (until > now) return;
      this.#until.delete(id);
    }
  }
}
