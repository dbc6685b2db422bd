import { appendFile, mkdir, readFile, rename, rm, truncate, writeFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { z } from "zod";
import { isErrno } from "../checkpoint/checkpoint-error.ts";
import { TrainConfig } from "./config.ts";
import type { Environment } from "./environment.ts";
import { lossPlot } from "./loss-plot.ts";
import { readIfThere } from "./state-file.ts";
import { TrainError } from "./train-error.ts";

const RunRecord = z.object({
  config: TrainConfig,
  /** SHA-256 of the base's manifest, which holds those of its files. */
  base_sha256: z.string(),
  data_sha256: z.string(),
  /** SHA-256 of the teacher's manifest, where it is a checkpoint of its own. */
  teacher_sha256: z.string().optional(),
  /** SHA-256 of the adapters it started from. */
  adapters_sha256: z.string().optional(),
  environment: z.record(z.string(), z.unknown()),
});

/** `config.json` of a run: what it was started with. */
export type RunRecord = Omit<z.infer<typeof RunRecord>, "environment"> & { environment: Environment };

/** The files of a run: `config.json`, `metrics.jsonl`, `loss.svg`, `state.bin`, `pid`, and `checkpoint/` at the end. */
export class RunFolder {
  readonly path: string;

  constructor(path: string) {
    this.path = resolve(path);
  }

  get statePath(): string {
    return join(this.path, "state.bin");
  }

  get checkpointPath(): string {
    return join(this.path, "checkpoint");
  }

  get #configPath(): string {
    return join(this.path, "config.json");
  }

  get metricsPath(): string {
    return join(this.path, "metrics.jsonl");
  }

  get #pidPath(): string {
    return join(this.path, "pid");
  }

  /** What the run was started with. @throws TrainError when the folder holds no run. */
  async record(): Promise<Omit<RunRecord, "environment">> {
    const text = await readIfThere(this.#configPath);
    if (text === undefined) throw new TrainError(`${this.path}: holds no training run to resume`);
    try {
      return RunRecord.parse(JSON.parse(text));
    } catch (error) {
      throw new TrainError(`${this.#configPath}: is malformed (${error instanceof Error ? error.message : error})`);
    }
  }

  /** @throws TrainError when the folder holds a run already. */
  async create(record: RunRecord): Promise<void> {
    if ((await readIfThere(this.#configPath)) !== undefined) {
      throw new TrainError(`${this.path}: holds a training run; use --resume to go on with it`);
    }
    await writing(this.path, () => mkdir(this.path, { recursive: true }));
    await this.update(record);
    await writing(this.metricsPath, () => writeFile(this.metricsPath, ""));
  }

  /** Writes `config.json` anew. */
  async update(record: RunRecord): Promise<void> {
    const text = `${JSON.stringify(record, undefined, 2)}\n`;
    await writing(this.#configPath, () => writeAtomically(this.#configPath, text));
  }

  /** Appends a line to the metrics. */
  async log(line: object): Promise<void> {
    await writing(this.metricsPath, () => appendFile(this.metricsPath, `${JSON.stringify(line)}\n`));
  }

  /** Draws `loss.svg` from the metrics. */
  async plot(): Promise<void> {
    const path = join(this.path, "loss.svg");
    const plot = lossPlot((await readIfThere(this.metricsPath)) ?? "");
    await writing(path, () => writeAtomically(path, plot));
  }

  /** Drops metrics of `step` and later, which a resumed run writes again, and a line that a crash cut short. */
  async forgetFrom(step: number): Promise<void> {
    const text = (await readIfThere(this.metricsPath)) ?? "";
    let keep = 0;
    for (const line of text.split("\n").slice(0, -1)) {
      const logged = Number(/^\{"type":"\w+","step":(\d+)/.exec(line)?.[1] ?? Number.NaN);
      if (!(logged < step)) break;
      keep += Buffer.byteLength(line) + 1;
    }
    if (text !== "") await truncate(this.metricsPath, keep);
  }

  /** Takes the folder for this process. @throws TrainError when another live process trains in it. */
  async lock(): Promise<void> {
    const other = Number((await readIfThere(this.#pidPath)) ?? Number.NaN);
    // An empty file is what a full disk leaves, and 0 would mean every process of our group.
    if (Number.isInteger(other) && other > 0 && other !== process.pid && isAlive(other)) {
      throw new TrainError(`${this.path}: process ${other} is training in it; if it is not, remove ${this.#pidPath}`);
    }
    await writing(this.#pidPath, () => writeFile(this.#pidPath, `${process.pid}\n`));
  }

  async unlock(): Promise<void> {
    if (Number(await readFile(this.#pidPath, "utf8").catch(() => "")) === process.pid) await rm(this.#pidPath);
  }
}

/** Runs a write to `path`. @throws TrainError that names it when the disk is full or the like. */
async function writing<T>(path: string, write: () => Promise<T>): Promise<T> {
  try {
    return await write();
  } catch (error) {
    throw new TrainError(`${path}: cannot be written (${error instanceof Error ? error.message : error})`);
  }
}

/** Readers, and a full disk, see the old text or the new one, whole. */
async function writeAtomically(path: string, text: string): Promise<void> {
  const partial = `${path}.partial`;
  try {
    await writeFile(partial, text);
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true });
    throw error;
  }
}

function isAlive(pid: number): boolean {
  try {
    process.kill(pid, 0);
    return true;
  } catch (error) {
    return isErrno(error, "EPERM");
  }
}
