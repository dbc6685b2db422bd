import type { FileHandle } from "node:fs/promises";
import { CheckpointError } from "./checkpoint-error.ts";

/** One read call takes at most 2 GiB − 1; stay well below. */
const MAX_READ = 1 << 30;

/**
 * Fills `target` from `position` in the file.
 * @param path named in errors.
 * @throws CheckpointError when the file ends first.
 */
export async function readFully(file: FileHandle, path: string, target: Uint8Array, position: number): Promise<void> {
  let done = 0;
  while (done < target.byteLength) {
    const length = Math.min(MAX_READ, target.byteLength - done);
    const { bytesRead } = await file.read(target, done, length, position + done);
    if (bytesRead === 0) {
      throw new CheckpointError(path, `is truncated: it ends before byte ${position + target.byteLength}`);
    }
    done += bytesRead;
  }
}
