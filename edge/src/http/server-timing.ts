type Phase = "auth" | "fleet" | "ledger" | "service";

/**
 * Times the phases of a request for the `server-timing` header. The runtime's clock stands still while code computes, so
 * these are the times spent waiting.
 */
export class ServerTiming {
  readonly #phases: string[] = [];

  async measure<T>(phase: Phase, work: () => Promise<T>): Promise<T> {
    const started = Date.now();
    try {
      return await work();
    } finally {
      this.#phases.push(`${phase};dur=${Date.now() - started}`);
    }
  }

  /** The header's value: `auth;dur=1, ledger;dur=3`. */
  toString(): string {
    return this.#phases.join(", ");
  }
}
