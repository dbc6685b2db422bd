import { z } from "zod";
import { MAX_BODY_BYTES } from "../http/read-json.ts";

/** A request's body and what surrounds it in its line. */
export const MAX_LINE_BYTES = MAX_BODY_BYTES + 4096;

/** One request of a batch. Its body is checked when it runs, as an interactive one is. */
export const BatchLine = z.object({
  custom_id: z.string().min(1).max(256),
  method: z.literal("POST", { error: 'must be "POST"' }),
  url: z.string(),
  body: z.record(z.string(), z.unknown(), { error: "must be an object" }),
});
export type BatchLine = z.infer<typeof BatchLine>;

/** Why a batch cannot run, as OpenAI says it. */
export interface BatchError {
  code: string;
  /** From 1; null when it concerns the whole file. */
  line: number | null;
  message: string;
  param: string | null;
}

// A file that is not text is not JSON either.
const decoder = new TextDecoder("utf-8", { fatal: true, ignoreBOM: false });

/** Reads a line. @returns the request, or what is wrong with it. */
export function parseLine(bytes: Uint8Array, line: number, endpoint: string): BatchLine | BatchError {
  let value: unknown;
  try {
    value = JSON.parse(decoder.decode(bytes));
  } catch {
    return { code: "invalid_json_line", line, message: "This line is not JSON in UTF-8.", param: null };
  }
  const result = BatchLine.safeParse(value);
  if (!result.success) {
    const [issue] = result.error.issues;
    const param = issue?.path.join(".") || null;
    return { code: "invalid_line", line, message: `${param ?? "The line"}: ${issue?.message}`, param };
  }
  if (result.data.url !== endpoint) {
    const message = `The batch is for ${endpoint}, this line for '${result.data.url.slice(0, 64)}'.`;
    return { code: "mismatched_url", line, message, param: "url" };
  }
  return result.data;
}
