import { type FileHandle, open, readFile, rename, rm } from "node:fs/promises";
import { dirname } from "node:path";
import { z } from "zod";
import { isErrno } from "../checkpoint/checkpoint-error.ts";
import { readFully } from "../checkpoint/read-fully.ts";
import type { AdamWState } from "./adamw.ts";
import type { Parameters } from "./parameters.ts";
import { TrainError } from "./train-error.ts";

const MAGIC = "fathom-train-1\n";
const MAX_HEADER = 16 * 1024 * 1024;
const PREFIX_BYTES = MAGIC.length + 8;

const Header = z.object({
  step: z.int().min(0),
  optimizerSteps: z.int().min(0),
  /** Tokens and seconds spent so far. */
  tokens: z.number(),
  seconds: z.number(),
  /** float32 arrays in file order. */
  arrays: z.array(z.object({ group: z.enum(["parameter", "first", "second"]), name: z.string(), length: z.int() })),
});

/** Where a run stands; random numbers and the data's order follow from seed and step. */
export interface RunState {
  step: number;
  tokens: number;
  seconds: number;
  /** The trained parameters only. */
  parameters: Parameters;
  optimizer: AdamWState;
}

/**
 * Writes a state so that at any moment the file holds the old one or the new one, whole.
 * @throws TrainError when it cannot be written; the old state is still there then.
 */
export async function writeState(path: string, state: RunState): Promise<void> {
  const groups = [
    ["parameter", state.parameters],
    ["first", state.optimizer.first],
    ["second", state.optimizer.second],
  ] as const;
  const arrays = groups.flatMap(([group, map]) => [...map].map(([name, values]) => ({ group, name, values })));
  const header = Buffer.from(
    JSON.stringify({
      step: state.step,
      optimizerSteps: state.optimizer.step,
      tokens: state.tokens,
      seconds: state.seconds,
      arrays: arrays.map(({ group, name, values }) => ({ group, name, length: values.length })),
    } satisfies z.infer<typeof Header>),
  );
  const prefix = Buffer.alloc(PREFIX_BYTES);
  prefix.write(MAGIC);
  prefix.writeBigUInt64LE(BigInt(header.length), MAGIC.length);
  const partial = `${path}.partial`;
  try {
    const file = await open(partial, "w");
    try {
      await writeAll(file, prefix);
      await writeAll(file, header);
      for (const { values } of arrays) {
        await writeAll(file, new Uint8Array(values.buffer, values.byteOffset, values.byteLength));
      }
      await file.sync();
    } finally {
      await file.close();
    }
    await rename(partial, path);
    await syncFolder(dirname(path));
  } catch (error) {
    await rm(partial, { force: true });
    const reason = error instanceof Error ? error.message : String(error);
    throw new TrainError(`${path}: the state could not be saved (${reason}); the last saved one is untouched`);
  }
}

/** Reads a state. @returns undefined when there is none. @throws TrainError when it is damaged. */
export async function readState(path: string): Promise<RunState | undefined> {
  let file: FileHandle;
  try {
    file = await open(path);
  } catch (error) {
    if (isErrno(error, "ENOENT")) return undefined;
    throw error;
  }
  try {
    const prefix = Buffer.alloc(PREFIX_BYTES);
    await readFully(file, path, prefix, 0);
    const length = Number(prefix.readBigUInt64LE(MAGIC.length));
    if (prefix.toString("latin1", 0, MAGIC.length) !== MAGIC || length > MAX_HEADER) {
      throw new TrainError(`${path}: is not a saved training state`);
    }
    const bytes = Buffer.alloc(length);
    await readFully(file, path, bytes, PREFIX_BYTES);
    const header = Header.parse(JSON.parse(bytes.toString("utf8")));
    const groups = { parameter: new Map(), first: new Map(), second: new Map() };
    let offset = PREFIX_BYTES + length;
    for (const { group, name, length: values } of header.arrays) {
      const array = new Float32Array(values);
      await readFully(file, path, new Uint8Array(array.buffer), offset);
      offset += array.byteLength;
      groups[group].set(name, array);
    }
    const { parameter: parameters, first, second } = groups;
    const { step, tokens, seconds, optimizerSteps } = header;
    return { step, tokens, seconds, parameters, optimizer: { step: optimizerSteps, first, second } };
  } finally {
    await file.close();
  }
}

/** The text of a file, or undefined when there is none. */
export async function readIfThere(path: string): Promise<string | undefined> {
  try {
    return await readFile(path, "utf8");
  } catch (error) {
    if (isErrno(error, "ENOENT")) return undefined;
    throw error;
  }
}

async function writeAll(file: FileHandle, bytes: Uint8Array): Promise<void> {
  for (let done = 0; done < bytes.length; ) {
    const { bytesWritten } = await file.write(bytes, done, Math.min(bytes.length - done, 1 << 28));
    done += bytesWritten;
  }
}

/** Makes a rename survive a power cut. */
async function syncFolder(path: string): Promise<void> {
  const folder = await open(path);
  try {
    await folder.sync();
  } finally {
    await folder.close();
  }
}
