import type { Engine, EngineAccount, EngineRequest } from "@fathom/gpu-service/engine/types.ts";

/** What one answer looked like from outside: milliseconds on the clock of `performance.now()`. */
export interface Trace {
  tokens: number[];
  layers: number[];
  times: number[];
  started: number;
  account: EngineAccount | undefined;
}

export type Wish = Pick<EngineRequest, "prompt" | "depth" | "maxTokens"> &
  Partial<Pick<EngineRequest, "policy" | "priority">>;

let serial = 0;

/** Runs a request to its end, greedily and without stop tokens, and notes when its tokens came. */
export async function trace(engine: Engine, wish: Wish): Promise<Trace> {
  const result: Trace = { tokens: [], layers: [], times: [], started: performance.now(), account: undefined };
  const sampling = { temperature: 0, topP: 1, seed: 0 };
  for await (const event of engine.generate({ id: `b${serial++}`, sampling, stopTokenIds: [], ...wish })) {
    if (event.type === "finished") {
      result.account = event.account;
      continue;
    }
    result.tokens.push(event.token);
    result.layers.push(event.layers);
    result.times.push(performance.now());
  }
  return result;
}

/** Runs requests at the same time. */
export function traceAll(engine: Engine, wishes: readonly Wish[]): Promise<Trace[]> {
  return Promise.all(wishes.map((wish) => trace(engine, wish)));
}

/** Tokens per second over everything, prompts included. */
export function totalRate(traces: readonly Trace[]): number {
  const started = Math.min(...traces.map((trace) => trace.started));
  const ended = Math.max(...traces.map(({ times }) => times.at(-1) ?? 0));
  return (1000 * traces.reduce((sum, { tokens }) => sum + tokens.length, 0)) / (ended - started);
}

/** Tokens per second while all of them decode: from the last one's first token to the first one's last. */
export function decodeRate(traces: readonly Trace[]): number {
  const from = Math.max(...traces.map(({ times }) => times[0] ?? 0));
  const to = Math.min(...traces.map(({ times }) => times.at(-1) ?? 0));
  const count = traces.reduce((sum, { times }) => sum + times.filter((time) => time > from && time <= to).length, 0);
  return (1000 * count) / (to - from);
}
