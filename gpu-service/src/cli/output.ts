import { ApiError, parseExits } from "@fathom/shared";
import { CommanderError, InvalidArgumentError } from "commander";

/** Exit code for options and arguments that make no sense. */
export const USAGE_EXIT_CODE = 2;

/** A failure that the user can mend: printed as one line, with this exit code. */
export class CliError extends Error {
  override readonly name = "CliError";
  readonly exitCode: number;

  constructor(message: string, options: { exitCode?: number; cause?: unknown } = {}) {
    super(message, { cause: options.cause });
    this.exitCode = options.exitCode ?? 1;
  }
}

/**
 * Prints an error as one line on stderr and returns the exit code: 2 for wrong usage, else 1. Commander has printed its own
 * errors already.
 */
export function reportError(error: unknown): number {
  if (error instanceof CommanderError) return error.exitCode === 0 ? 0 : USAGE_EXIT_CODE;
  const message = error instanceof Error ? error.message : String(error);
  process.stderr.write(`fathom: ${oneLine(message)}\n`);
  if (process.env.FATHOM_DEBUG && error instanceof Error) process.stderr.write(`${error.stack}\n`);
  if (error instanceof CliError) return error.exitCode;
  return error instanceof ApiError && error.status < 500 ? USAGE_EXIT_CODE : 1;
}

/** Joins the lines of a message. */
export function oneLine(message: string): string {
  return message.trim().replace(/\s*\n\s*/g, " ");
}

/** An option parser for whole numbers within bounds. */
export function wholeNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^-?\d+$/.test(text) ? Number(text) : Number.NaN;
    if (Number.isSafeInteger(value) && value >= min && value <= max) return value;
    throw new InvalidArgumentError(`It must be a whole number from ${min} to ${max}.`);
  };
}

/** An option parser for decimal numbers within bounds. */
export function decimalNumber(min: number, max: number): (text: string) => number {
  return (text) => {
    const value = /^-?(\d+\.?\d*|\.\d+)$/.test(text) ? Number(text) : Number.NaN;
    if (value >= min && value <= max) return value;
    throw new InvalidArgumentError(`It must be a number from ${min} to ${max}.`);
  };
}

/** An option parser for `5,9,12`. */
export function tokenList(text: string): number[] {
  const tokens = text.split(",").map((part) => part.trim());
  if (tokens.every((part) => /^\d{1,9}$/.test(part))) return tokens.map(Number);
  throw new InvalidArgumentError("It must be a list of token ids such as 5,9,12.");
}

/** An option parser for `12,18,30`. */
export function depthList(text: string): number[] {
  try {
    return parseExits(text);
  } catch {
    throw new InvalidArgumentError("It must be a list of ascending depths such as 12,18,30.");
  }
}

/** An option parser that collects non-empty texts given one by one. */
export function collect(text: string, previous: readonly string[]): string[] {
  if (text === "") throw new InvalidArgumentError("It must not be empty.");
  return [...previous, text];
}

/** Aborted when the reader of our output goes away, as in `fathom generate … | head`. */
export const outputClosed = new AbortController();

/** Takes note when stdout is closed early, rather than failing. */
export function watchOutput(): void {
  process.stdout.on("error", (error: NodeJS.ErrnoException) => {
    if (error.code !== "EPIPE") throw error;
    outputClosed.abort();
  });
}
