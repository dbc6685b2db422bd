/** A checkpoint, or the model it is made from, that cannot be used. The message names the file and says why. */
export class CheckpointError extends Error {
  override readonly name = "CheckpointError";
  /** The offending file or folder, as the user would write it. */
  readonly file: string;
  readonly reason: string;

  constructor(file: string, reason: string, options: { cause?: unknown } = {}) {
    super(`${file}: ${reason}`, { cause: options.cause });
    this.file = file;
    this.reason = reason;
  }
}

/**
 * Runs work that writes to `target`.
 * @throws CheckpointError that names the target when the file system refuses, as a full disk does; other errors pass.
 */
export async function writingTo<T>(target: string, work: () => Promise<T>): Promise<T> {
  try {
    return await work();
  } catch (error) {
    if (!(error instanceof Error && "syscall" in error) || error.syscall === "read") throw error;
    throw new CheckpointError(target, `cannot be written (${error.message})`, { cause: error });
  }
}

/** Whether `error` is a file-system error with this code, such as `ENOENT`. */
export function isErrno(error: unknown, code: string): boolean {
  return error instanceof Error && "code" in error && error.code === code;
}
