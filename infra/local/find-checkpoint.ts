import { existsSync } from "node:fs";
import { readdir } from "node:fs/promises";
import { join } from "node:path";
import { pullModel } from "@fathom/gpu-service/checkpoint/pull-model.ts";
import { ProgressBar } from "@fathom/gpu-service/cli/progress-bar.ts";

const DEFAULT_MODEL = "smollm2-135m";

/** Where the demo may find a checkpoint. */
export interface CheckpointPlaces {
  /** The folder that the user names. */
  given: string | undefined;
  /** Folder of the checkpoints that the package ships; it may be missing. */
  shipped: string;
  /** Folder that keeps what is fetched. */
  state: string;
}

/**
 * The folder to serve: the given one, the first shipped one, or the default model, fetched on first use.
 * @param signal ends a fetch; what was downloaded by then is kept for the next one.
 * @throws Error that says what is missing and what to do.
 */
export async function findCheckpoint(
  { given, shipped, state }: CheckpointPlaces,
  signal?: AbortSignal,
): Promise<string> {
  if (given !== undefined) {
    if (!holdsCheckpoint(given)) throw new Error(`there is no nested checkpoint in '${given}'`);
    return given;
  }
  const names = existsSync(shipped) ? (await readdir(shipped)).sort() : [];
  for (const name of names) if (holdsCheckpoint(join(shipped, name))) return join(shipped, name);
  const pulled = join(state, "models", DEFAULT_MODEL);
  if (!holdsCheckpoint(pulled)) await fetchDefault(pulled, signal);
  return pulled;
}

function holdsCheckpoint(dir: string): boolean {
  return existsSync(join(dir, "manifest.json"));
}

async function fetchDefault(dir: string, signal: AbortSignal | undefined): Promise<void> {
  console.log(`Fetching ${DEFAULT_MODEL} (once, about 95 MB) …`);
  const bar = new ProgressBar();
  try {
    await pullModel(DEFAULT_MODEL, dir, {
      weights: "int4",
      ...(signal ? { signal } : {}),
      onProgress: ({ stage, done, total }) =>
        bar.update(stage === "download" ? "downloading" : "importing  ", done, total),
      onNotice: (notice) => console.log(notice),
    });
  } catch (error) {
    signal?.throwIfAborted();
    const reason = error instanceof Error ? error.message : String(error);
    throw new Error(
      `${DEFAULT_MODEL} cannot be fetched: ${reason}. A checkpoint that is there needs no network: npm start -- --checkpoint DIR`,
    );
  } finally {
    bar.stop();
  }
}
