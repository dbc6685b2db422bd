import type { Heartbeat } from "@fathom/shared";
import type { EngineStats } from "../engine/types.ts";

/** What of the engine's figures says how busy it is. */
type Figures = Pick<EngineStats, "running" | "generatedTokens" | "kvBytes" | "kvBudgetBytes" | "prefixCacheBytes">;

/** Turns the engine's counters into what a heartbeat says of K/V memory and speed. */
export class LoadMeter {
  #last: { at: number; tokens: number; running: number } | undefined;

  /**
   * @param now milliseconds, on the same clock throughout
   * @returns bytes of K/V that requests may still claim (remembered prefixes give way), the most there may be, and how long a
   *   running request has waited for a token since the last call, milliseconds; undefined when none came
   */
  read(
    { running, generatedTokens, kvBytes, kvBudgetBytes, prefixCacheBytes }: Figures,
    now: number,
  ): Pick<Heartbeat["load"], "kv_free_bytes" | "kv_total_bytes" | "ms_per_token"> {
    const last = this.#last;
    this.#last = { at: now, tokens: generatedTokens, running };
    const tokens = last ? generatedTokens - last.tokens : 0;
    const streams = last ? (last.running + running) / 2 : 0;
    return {
      kv_free_bytes: Math.max(0, kvBudgetBytes - (kvBytes - prefixCacheBytes)),
      kv_total_bytes: kvBudgetBytes,
      ...(last && tokens > 0 && streams > 0 ? { ms_per_token: ((now - last.at) * streams) / tokens } : {}),
    };
  }
}
