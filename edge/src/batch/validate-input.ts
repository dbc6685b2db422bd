import { LineSplitter } from "../files/line-splitter.ts";
import { type BatchError, MAX_LINE_BYTES, parseLine } from "./batch-line.ts";
import type { BatchStore, NewLine } from "./batch-store.ts";

/** More errors than this help nobody. */
const MAX_ERRORS = 100;

/**
 * Reads the lines of a batch's input into its store, one at a time.
 * @returns what is wrong with them; a batch runs only if nothing is
 */
export async function validateInput(
  body: ReadableStream<Uint8Array>,
  endpoint: string,
  maxLines: number,
  store: BatchStore,
): Promise<BatchError[]> {
  const errors: BatchError[] = [];
  const splitter = new LineSplitter(MAX_LINE_BYTES);
  let requests = 0;
  const take = (lines: ReturnType<LineSplitter["push"]>): void => {
    const good: NewLine[] = [];
    for (const { number, offset, bytes } of lines) {
      if (isBlank(bytes)) continue;
      requests++;
      const parsed = parseLine(bytes, number, endpoint);
      if ("custom_id" in parsed) {
        good.push({ line: number, customId: parsed.custom_id, offset, length: bytes.length });
      } else errors.push(parsed);
    }
    for (const { line, customId } of store.addLines(good)) {
      const message = `The custom_id '${customId}' was used before.`;
      errors.push({ code: "duplicate_custom_id", line, message, param: "custom_id" });
    }
  };
  try {
    for await (const chunk of body) {
      take(splitter.push(chunk));
      if (errors.length >= MAX_ERRORS || requests > maxLines) break;
    }
    if (errors.length < MAX_ERRORS && requests <= maxLines) take(splitter.end());
  } catch (error) {
    if (!(error instanceof RangeError)) throw error;
    errors.push({ code: "line_too_long", line: null, message: `In the file, ${error.message}.`, param: null });
  }
  if (requests > maxLines) {
    const message = `The file has more than ${maxLines} requests.`;
    errors.push({ code: "too_many_requests", line: null, message, param: "input_file_id" });
  }
  if (requests === 0 && errors.length === 0) {
    errors.push({ code: "empty_file", line: null, message: "The file has no requests.", param: "input_file_id" });
  }
  return errors.slice(0, MAX_ERRORS);
}

function isBlank(bytes: Uint8Array): boolean {
  return bytes.every((byte) => byte === 32 || byte === 13 || byte === 9);
}
