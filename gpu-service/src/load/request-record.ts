import { ExitPolicyName, FathomResponse } from "@fathom/shared";
import { z } from "zod";

const milliseconds = z.number();

/** The depth that a request asked for. */
export const AskedDepth = z.union([z.int().min(1).max(1024), z.literal("auto")]);
export type AskedDepth = z.infer<typeof AskedDepth>;

/**
 * One request of a run: a line of the raw file. Times are milliseconds; `*_at_ms` are since the run's start, and latencies
 * count from `intended_at_ms`, not from when the client came to send.
 */
export const RequestRecord = z.object({
  index: z.int().min(0),
  /** Of the prompt in its file. */
  prompt: z.int().min(0),
  /** Null: not asked for. */
  depth: AskedDepth.nullable(),
  exit: ExitPolicyName.nullable(),
  /** `refused`: 429 or 503. `cut`: in flight when the run was interrupted. */
  outcome: z.enum(["ok", "refused", "failed", "cut"]),
  /** HTTP status; null where there was no answer at all. */
  status: z.int().nullable(),
  /** The server's error code, or ours such as `timeout` and `ECONNREFUSED`; null with `ok`. */
  code: z.string().nullable(),
  message: z.string().nullable(),
  intended_at_ms: milliseconds,
  sent_at_ms: milliseconds,
  ended_at_ms: milliseconds,
  /** To the first text; null if there was none. */
  ttft_ms: milliseconds.nullable(),
  /** `(e2e - ttft) / (output tokens - 1)`, as vLLM's; null with fewer than two tokens. */
  tpot_ms: milliseconds.nullable(),
  /** To the end of the stream; null unless `ok`. */
  e2e_ms: milliseconds.nullable(),
  /** Gaps between neighbouring chunks with text, as vLLM's: a chunk of several tokens has one gap. */
  itl_ms: z.array(milliseconds),
  /** Null where the server gives no usage. */
  prompt_tokens: z.int().nullable(),
  /** Null unless `ok`. */
  output_tokens: z.int().nullable(),
  /** `chunks`: the server gives no usage, so chunks with text are counted in the tokens' place. */
  tokens_from: z.enum(["usage", "fathom", "chunks"]).nullable(),
  fathom: FathomResponse.nullable(),
});
export type RequestRecord = z.infer<typeof RequestRecord>;
