import { fullDepth } from "@fathom/shared";
import type { Engine } from "../engine/types.ts";
import { CalibrationError } from "./calibration-error.ts";
import { type RecordedAnswer, recordAnswer } from "./exit-simulation.ts";

/** Share of tokens that scoring may decide otherwise than decoding did: quantised kernels differ in the last bits only. */
const MOST_DIFFERING = 0.05;

export interface RecordOptions {
  /** Longest continuation, tokens. */
  maxTokens: number;
  /** End the answer, and are decided like any token. */
  stopTokenIds: readonly number[];
  /** Prompts in work at the same time. */
  parallel: number;
  signal: AbortSignal;
  onPrompt?: (done: number, total: number) => void;
}

/**
 * Continues every prompt greedily at full depth and records what each exit predicts at each of the continuation's positions.
 * @returns answers in the prompts' order, of the engine's exits
 * @throws CalibrationError when scoring does not reproduce the continuations; what the engine throws; the signal's reason.
 */
export async function recordAnswers(
  engine: Engine,
  prompts: readonly (readonly number[])[],
  options: RecordOptions,
): Promise<RecordedAnswer[]> {
  const answers: RecordedAnswer[] = new Array(prompts.length);
  const failed = new AbortController();
  const signal = AbortSignal.any([options.signal, failed.signal]);
  const count = { tokens: 0, differing: 0 };
  let next = 0;
  let done = 0;
  const work = async (): Promise<void> => {
    while (next < prompts.length && !signal.aborted) {
      const index = next++;
      const { answer, differing } = await record(engine, prompts[index] ?? [], `calibrate-${index}`, options, signal);
      answers[index] = answer;
      count.tokens += answer.tokens;
      count.differing += differing;
      options.onPrompt?.(++done, prompts.length);
    }
  };
  // The others end with the one that fails, and all have ended before the caller closes the engine.
  const workers = Array.from({ length: Math.min(options.parallel, prompts.length) }, () =>
    work().catch((error: unknown) => failed.abort(error)),
  );
  await Promise.all(workers);
  signal.throwIfAborted();
  if (count.differing > MOST_DIFFERING * count.tokens) {
    throw new CalibrationError(
      `scoring the answers gives other tokens than decoding them did, for ${count.differing} of ${count.tokens}: ` +
        "thresholds measured so would mean nothing",
    );
  }
  return answers;
}

async function record(
  engine: Engine,
  prompt: readonly number[],
  id: string,
  { maxTokens, stopTokenIds }: RecordOptions,
  signal: AbortSignal,
): Promise<{ answer: RecordedAnswer; differing: number }> {
  const { exits } = engine.info;
  const { tokens, stopped } = await decode(engine, prompt, id, { maxTokens, stopTokenIds }, signal);
  // The last token of an unfinished answer decides nothing more; after a finished one comes the decision to end.
  const decided = stopped ? tokens : tokens.slice(0, -1);
  const scores = await engine.score([...prompt, ...decided], prompt.length - 1);
  signal.throwIfAborted();
  const answer = recordAnswer(scores, exits);
  if (answer.tokens !== decided.length + 1) {
    throw new CalibrationError(
      `the engine scored ${answer.tokens} positions where ${decided.length + 1} were asked for`,
    );
  }
  const full = scores.find(({ depth }) => depth === fullDepth(exits))?.predicted ?? [];
  let differing = 0;
  for (const [i, token] of tokens.entries()) if (full[i] !== token) differing++;
  if (stopped && !stopTokenIds.includes(full[tokens.length] ?? -1)) differing++;
  return { answer, differing };
}

async function decode(
  engine: Engine,
  prompt: readonly number[],
  id: string,
  limits: Pick<RecordOptions, "maxTokens" | "stopTokenIds">,
  signal: AbortSignal,
): Promise<{ tokens: number[]; stopped: boolean }> {
  signal.throwIfAborted();
  const tokens: number[] = [];
  const depth = fullDepth(engine.info.exits);
  const sampling = { temperature: 0, topP: 1, seed: 0 };
  for await (const event of engine.generate({ id, prompt, depth, sampling, ...limits }, signal)) {
    if (event.type === "token") tokens.push(event.token);
    else if (event.reason === "stop" || event.reason === "length") return { tokens, stopped: event.reason === "stop" };
    else break;
  }
  signal.throwIfAborted();
  throw new CalibrationError("the engine ended an answer before it was complete");
}
