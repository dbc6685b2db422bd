import { randomStream, shuffled } from "../random/random-stream.ts";
import { arrivalTimes } from "./arrivals.ts";
import { assignMix, type MixPart } from "./mix.ts";
import type { Exchange, OpenAiClient } from "./openai-client.ts";
import type { BenchPrompt } from "./prompts.ts";
import { type BenchReport, type BenchSettings, makeReport } from "./report.ts";
import type { RequestRecord } from "./request-record.ts";
import { runLoad } from "./run-load.ts";

/** Statuses by which a server says that it has no room. */
const REFUSALS: readonly (number | null)[] = [429, 503];
/** Warm-up requests in flight where the run itself has no bound. */
const WARMUP_CONCURRENCY = 8;
/** One random stream each, so that changing one option leaves what the others draw as it is. */
const STREAM = { prompts: 1, arrivals: 2, depths: 3, exits: 4 };

export interface BenchRun {
  client: OpenAiClient;
  prompts: readonly BenchPrompt[];
  settings: BenchSettings;
  /** Ends the run: what is in flight is cut, and the report says what was measured until then. */
  signal: AbortSignal;
  onProgress: (phase: "warm-up" | "requests", done: number, total: number) => void;
}

/**
 * Warms the server up, sends the load and sums it up.
 * @throws Error that says what happened when a request of the warm-up fails: a wrong key or model shows before the run.
 */
export async function runBench(run: BenchRun): Promise<{ report: BenchReport; records: RequestRecord[] }> {
  const { client, settings, prompts, signal, onProgress } = run;
  const { requests: count, rate, burstiness, seed } = settings;
  const order = shuffled([...prompts.keys()], randomStream(seed, STREAM.prompts));
  const depths = assigned(settings.depth_mix, count, randomStream(seed, STREAM.depths));
  const exits = assigned(settings.exit_mix, count, randomStream(seed, STREAM.exits));
  const path = settings.endpoint === "chat" ? "chat/completions" : "completions";
  const concurrency = settings.concurrency ?? Number.POSITIVE_INFINITY;

  const request = (index: number, place: number) => {
    const asked = {
      index,
      prompt: order[place] ?? 0,
      depth: depths?.[index % count] ?? null,
      exit: exits?.[index % count] ?? null,
    };
    const body = requestBody(settings, prompts[asked.prompt] ?? { kind: "text", text: "" }, asked);
    return { asked, exchange: client.stream(path, body, signal) };
  };

  let done = 0;
  const warmup = await runLoad(
    {
      arrivals: undefined,
      concurrency: Math.min(concurrency, WARMUP_CONCURRENCY),
      count: settings.warmup,
      maxMs: Number.POSITIVE_INFINITY,
    },
    async (index) => {
      // From the end: a server that keeps prefixes should not know the run's first prompts already.
      const { exchange } = request(index, order.length - 1 - (index % order.length));
      const { failure, status } = await exchange;
      onProgress("warm-up", ++done, settings.warmup);
      return failure && { ...failure, status };
    },
    signal,
  );
  const failure = warmup.results.find((result) => result !== undefined);
  if (failure && !signal.aborted) {
    const status = failure.status === null ? "" : `status ${failure.status}, `;
    throw new Error(`the warm-up failed at ${client.resolve(path)}: ${status}${failure.code}: ${failure.message}`);
  }

  done = 0;
  const startedAt = new Date().toISOString();
  const before = performance.eventLoopUtilization();
  const start = performance.now();
  const { results, durationMs, overdue } = await runLoad(
    {
      arrivals:
        rate === null ? undefined : arrivalTimes(count, { rate, burstiness }, randomStream(seed, STREAM.arrivals)),
      concurrency,
      count,
      maxMs: settings.max_seconds === null ? Number.POSITIVE_INFINITY : settings.max_seconds * 1000,
    },
    async (index, intendedAt) => {
      const { asked, exchange } = request(index, index % order.length);
      const record = toRecord(asked, await exchange, intendedAt, start);
      onProgress("requests", ++done, count);
      return record;
    },
    signal,
  );
  const records = results.toSorted((x, y) => x.index - y.index);
  const clientBusy = performance.eventLoopUtilization(before).utilization;
  const figures = { settings, startedAt, interrupted: signal.aborted, durationMs, overdue, clientBusy };
  return { report: makeReport(records, figures), records };
}

function assigned<T>(mix: readonly MixPart<T>[] | null, count: number, random: () => number): T[] | undefined {
  return mix ? assignMix(mix, count, random) : undefined;
}

type Asked = Pick<RequestRecord, "index" | "prompt" | "depth" | "exit">;

/** Without a mix there is no `fathom` field, which servers of others may refuse. */
function requestBody(settings: BenchSettings, prompt: BenchPrompt, { index, depth, exit }: Asked): object {
  const { endpoint, model, max_tokens, temperature, seed, threshold } = settings;
  const fathom = {
    ...(depth === null ? {} : { depth }),
    ...(exit === null ? {} : { exit }),
    // The other policies of a mix have none.
    ...(threshold === null || exit !== "confidence" ? {} : { threshold }),
  };
  return {
    model,
    ...(endpoint === "chat" ? { messages: asMessages(prompt) } : { prompt: asText(prompt) }),
    max_tokens,
    temperature,
    // Greedy answers need none, and not every server takes it.
    ...(temperature > 0 ? { seed: seed + index } : {}),
    stream: true,
    stream_options: { include_usage: true },
    ...(Object.keys(fathom).length > 0 ? { fathom } : {}),
  };
}

function asMessages(prompt: BenchPrompt): object[] {
  if (prompt.kind === "chat") return prompt.messages;
  if (prompt.kind === "text") return [{ role: "user", content: prompt.text }];
  throw new Error("a prompt of token ids needs --endpoint completions");
}

function asText(prompt: BenchPrompt): string | number[] {
  if (prompt.kind === "tokens") return prompt.tokens;
  return prompt.kind === "text" ? prompt.text : prompt.messages.map(({ content }) => content).join("\n\n");
}

/** @param start `performance.now()` at the run's start */
export function toRecord(asked: Asked, exchange: Exchange, intendedAt: number, start: number): RequestRecord {
  const { sentAt, endedAt, status, failure, reading } = exchange;
  const whole = failure === undefined ? reading : undefined;
  const ttft = reading?.firstAt === undefined ? null : reading.firstAt - intendedAt;
  const e2e = whole ? endedAt - intendedAt : null;
  const tokens = whole ? countTokens(whole) : null;
  const tpot = e2e !== null && ttft !== null && tokens && tokens.count > 1 ? (e2e - ttft) / (tokens.count - 1) : null;
  const outcome = !failure
    ? "ok"
    : REFUSALS.includes(status)
      ? "refused"
      : failure.code === "interrupted"
        ? "cut"
        : "failed";
  return {
    ...asked,
    outcome,
    status,
    code: failure?.code ?? null,
    message: failure?.message ?? null,
    intended_at_ms: toMicroseconds(intendedAt - start),
    sent_at_ms: toMicroseconds(sentAt - start),
    ended_at_ms: toMicroseconds(endedAt - start),
    ttft_ms: ttft === null ? null : toMicroseconds(ttft),
    tpot_ms: tpot === null ? null : toMicroseconds(tpot),
    e2e_ms: e2e === null ? null : toMicroseconds(e2e),
    itl_ms: reading?.gaps.map(toMicroseconds) ?? [],
    prompt_tokens: whole?.usage?.prompt_tokens ?? null,
    output_tokens: tokens?.count ?? null,
    tokens_from: tokens?.from ?? null,
    fathom: whole?.fathom ?? null,
  };
}

/** Digits beyond are noise, and most of a raw file. */
function toMicroseconds(milliseconds: number): number {
  return Math.round(milliseconds * 1000) / 1000;
}

function countTokens(reading: NonNullable<Exchange["reading"]>): {
  count: number;
  from: NonNullable<RequestRecord["tokens_from"]>;
} {
  const { usage, fathom, firstAt, gaps } = reading;
  if (usage) return { count: usage.completion_tokens, from: "usage" };
  if (fathom) return { count: Object.values(fathom.layers.histogram).reduce((x, y) => x + y, 0), from: "fathom" };
  return { count: firstAt === undefined ? 0 : gaps.length + 1, from: "chunks" };
}
