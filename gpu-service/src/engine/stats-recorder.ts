import type { EngineStats, ExitReason } from "./types.ts";

/** Gauges of now, which the recorder takes as they are. */
export type Gauges = Pick<
  EngineStats,
  "running" | "waiting" | "paused" | "kvBytes" | "kvBudgetBytes" | "prefixCacheBytes" | "pendingRows"
>;

/** Counts what the engine does. */
export class StatsRecorder {
  readonly #exits = new Map<string, { depth: number; reason: ExitReason; tokens: number }>();
  steps = 0;
  promptTokens = 0;
  prefixCacheQueries = 0;
  prefixCacheHits = 0;
  preemptions = 0;
  draftProposed = 0;
  draftAccepted = 0;
  #generatedTokens = 0;

  /** Counts a generated token. */
  token(depth: number, reason: ExitReason): void {
    this.#generatedTokens++;
    const key = `${depth}/${reason}`;
    const known = this.#exits.get(key);
    if (known) known.tokens++;
    else this.#exits.set(key, { depth, reason, tokens: 1 });
  }

  snapshot(gauges: Gauges): EngineStats {
    const { steps, promptTokens, prefixCacheQueries, prefixCacheHits, preemptions, draftProposed, draftAccepted } =
      this;
    return {
      ...gauges,
      steps,
      promptTokens,
      prefixCacheQueries,
      prefixCacheHits,
      preemptions,
      draftProposed,
      draftAccepted,
      generatedTokens: this.#generatedTokens,
      exits: [...this.#exits.values()].map((exit) => ({ ...exit })),
    };
  }
}
