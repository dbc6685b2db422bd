import { CliError } from "./output.ts";

/** What a shell reports for a process that a signal ended. */
const EXIT_CODES = { SIGINT: 130, SIGTERM: 143 } as const;
type Signal = keyof typeof EXIT_CODES;

/**
 * Runs work that Ctrl-C or SIGTERM ends in good order: the first one aborts the signal, a second one ends the process.
 * @param remark tells the user what an interruption leaves behind.
 * @throws CliError when it was interrupted.
 */
export async function interruptible<T>(remark: string, work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  let received: Signal | undefined;
  const onSignal = (signal: Signal): void => {
    if (received) process.exit(EXIT_CODES[signal]);
    received = signal;
    controller.abort();
  };
  const names = Object.keys(EXIT_CODES) as Signal[];
  for (const name of names) process.on(name, onSignal);
  try {
    return await work(controller.signal);
  } catch (error) {
    if (!received) throw error;
    throw new CliError(`interrupted; ${remark}`, { exitCode: EXIT_CODES[received], cause: error });
  } finally {
    for (const name of names) process.off(name, onSignal);
  }
}
