import { readFile, stat } from "node:fs/promises";
import { CheckpointError, isErrno } from "../checkpoint-error.ts";

/** No JSON or text file of a model is larger. */
const MAX_TEXT_BYTES = 256 * 1024 * 1024;

/** The text of a file, or undefined when there is none. @throws CheckpointError when it cannot be read. */
export async function readText(path: string): Promise<string | undefined> {
  try {
    if ((await stat(path)).size > MAX_TEXT_BYTES) throw new CheckpointError(path, "is too large");
    return await readFile(path, "utf8");
  } catch (error) {
    if (isErrno(error, "ENOENT")) return undefined;
    if (error instanceof CheckpointError) throw error;
    throw new CheckpointError(path, `cannot be read (${error instanceof Error ? error.message : error})`);
  }
}

/** @param path named in errors. @throws CheckpointError when the text is not JSON. */
export function parseJson(path: string, text: string): unknown {
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new CheckpointError(path, "is malformed: not JSON", { cause: error });
  }
}
