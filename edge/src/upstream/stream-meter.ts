import { z } from "zod";
import { ServiceAccount } from "./service-account.ts";

/** The parts of a chunk that the account needs. */
const MeteredChunk = z.object({
  choices: z.array(z.object({ layers_used: z.array(z.int().min(1)).optional() })).optional(),
  ...ServiceAccount.partial().shape,
  error: z.object({}).optional(),
});

/** What a run of events adds to the account. */
export interface Metered {
  /** Layers used by the tokens in these events. */
  layers: number;
  /** Tokens in these events. */
  tokens: number;
  /** Of the whole answer, from the chunk that carries it. */
  account: ServiceAccount | undefined;
  /** The service ended the answer with an error of its own. */
  failed: boolean;
  /** The answer is complete: `[DONE]`. */
  done: boolean;
}

/** Reads the account out of the data of events. @throws when the data is not what a service sends. */
export function meter(data: readonly string[]): Metered {
  const sum: Metered = { layers: 0, tokens: 0, account: undefined, failed: false, done: false };
  for (const text of data) {
    if (text === "[DONE]") {
      sum.done = true;
      continue;
    }
    const { choices = [], usage, fathom, error } = MeteredChunk.parse(JSON.parse(text));
    for (const { layers_used = [] } of choices) {
      sum.layers += layers_used.reduce((a, b) => a + b, 0);
      sum.tokens += layers_used.length;
    }
    if (fathom) sum.account = { usage, fathom };
    if (error) sum.failed = true;
  }
  return sum;
}
