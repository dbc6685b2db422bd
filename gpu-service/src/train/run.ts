import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { join, resolve } from "node:path";
import { isDeepStrictEqual } from "node:util";
import type { ExitSet } from "@fathom/shared";
import { hashFile } from "../checkpoint/hash-file.ts";
import { checkExits } from "../checkpoint/import-checkpoint.ts";
import { type Checkpoint, MANIFEST_FILE, openCheckpoint } from "../checkpoint/open-checkpoint.ts";
import { TextModel } from "../text/text-model.ts";
import { readAdapters, writeAdapters } from "./adapter-file.ts";
import type { RESUMABLE, TrainConfig } from "./config.ts";
import { type Dataset, loadDataset } from "./data/dataset.ts";
import { describeEnvironment } from "./environment.ts";
import { exportRun } from "./export-run.ts";
import { loadParameters, type Parameters } from "./parameters.ts";
import { RunFolder } from "./run-folder.ts";
import { type RunState, readState, writeState } from "./state-file.ts";
import { TrainError } from "./train-error.ts";
import { type HeldOutScore, initialAdapters, type StepResult, Trainer } from "./trainer.ts";

/** What a run tells while it goes on. */
export interface TrainListener {
  onData?: (data: { train: number; heldOut: number; truncated: number; dropped: number }) => void;
  onStep?: (result: StepResult & { steps: number; tokensPerSecond: number }) => void;
  onEvaluation?: (step: number, scores: readonly HeldOutScore[]) => void;
  onSaved?: (step: number) => void;
}

export interface RunResult {
  step: number;
  steps: number;
  /** The trained checkpoint's folder, once the run is complete. */
  checkpoint: string | undefined;
}

/** Starts a run in a new folder. @throws TrainError or CheckpointError that says what to mend. */
export async function startRun(
  out: string,
  config: TrainConfig,
  signal: AbortSignal,
  listener: TrainListener = {},
): Promise<RunResult> {
  const absolute = {
    ...config,
    base: resolve(config.base),
    data: resolve(config.data),
    teacher: isFolder(config.teacher) ? resolve(config.teacher) : config.teacher,
    ...(config.initAdapters === undefined ? {} : { initAdapters: resolve(config.initAdapters) }),
  };
  const material = await loadMaterial(absolute);
  const folder = new RunFolder(out);
  const { adapters, adapters_sha256 } = await startingAdapters(absolute, material.base);
  const trainer = await newTrainer(absolute, material, undefined, adapters);
  try {
    const hashes = { ...material.hashes, ...(adapters_sha256 === undefined ? {} : { adapters_sha256 }) };
    await folder.create({ config: absolute, ...hashes, environment: await describeEnvironment() });
    return await train(folder, trainer, absolute, material, signal, listener);
  } finally {
    await trainer.close();
  }
}

export type ResumeSettings = Partial<Pick<TrainConfig, (typeof RESUMABLE)[number]>>;

/**
 * Goes on with the run in a folder from its last saved state, bit for bit as if it had not stopped.
 * @param changes settings that may differ from the run's
 * @throws TrainError when the base or the data are not the run's.
 */
export async function resumeRun(
  out: string,
  changes: ResumeSettings,
  signal: AbortSignal,
  listener: TrainListener = {},
): Promise<RunResult> {
  const folder = new RunFolder(out);
  const { config, material, hashes } = await reopen(folder, changes);
  const trainer = await newTrainer(config, material, await readState(folder.statePath));
  try {
    await folder.lock();
    await folder.update({ config, ...hashes, environment: await describeEnvironment() });
    return await train(folder, trainer, config, material, signal, listener);
  } finally {
    await trainer.close();
  }
}

/** Writes a run's last saved state as a checkpoint, while the run goes on or not. */
export async function exportLastState(out: string): Promise<RunResult> {
  const folder = new RunFolder(out);
  const { config, material } = await reopen(folder, {});
  const state = await readState(folder.statePath);
  if (!state) throw new TrainError(`${folder.path}: has no saved state yet`);
  const trainer = await newTrainer(config, material, state);
  try {
    const { base, exits } = material;
    const parameters = await trainer.trainedParameters();
    await exportRun(folder.checkpointPath, { base, exits, parameters, config, step: state.step });
    return { step: state.step, steps: trainer.steps, checkpoint: folder.checkpointPath };
  } finally {
    await trainer.close();
  }
}

/** Writes the low-rank adapters of a run's last saved state into a file, for another run to start from. */
export async function exportAdapters(out: string, file: string): Promise<{ step: number }> {
  const folder = new RunFolder(out);
  const { config } = await folder.record();
  if (config.loraRank === undefined) throw new TrainError(`${folder.path}: the run trains no adapters`);
  const state = await readState(folder.statePath);
  if (!state) throw new TrainError(`${folder.path}: has no saved state yet`);
  const { architecture } = (await openCheckpoint(config.base)).manifest;
  await writeAdapters(file, architecture, state.parameters);
  return { step: state.step };
}

interface Material {
  base: Checkpoint;
  exits: ExitSet;
  data: Dataset;
  /** Checkpoint of a teacher that is neither the model nor its base. */
  teacher: Checkpoint | undefined;
  hashes: { base_sha256: string; data_sha256: string; teacher_sha256?: string };
}

async function loadMaterial(config: TrainConfig): Promise<Material> {
  const base = await openCheckpoint(config.base);
  const { architecture, tokenizer } = base.manifest;
  const exits = checkExits(config.base, config.exits ?? base.manifest.exits, architecture.layers);
  if (config.exitWeights && config.exitWeights.length !== exits.length) {
    throw new TrainError(`${config.exitWeights.length} exit weights for the exits ${exits.join(", ")}`);
  }
  const data = await loadDataset(config.data, {
    text: await TextModel.load(config.base),
    endToken: tokenizer.eos_token_ids[0],
    template: config.template,
    maxLength: Math.min(config.maxLength, architecture.context_length),
    vocabulary: architecture.vocab_size,
    skipEmpty: config.skipEmpty,
    minResponse: config.minResponse,
  });
  const teacher = isFolder(config.teacher) ? await openTeacher(config.teacher, base) : undefined;
  const hashes = {
    base_sha256: await hashManifest(base),
    data_sha256: data.sha256,
    ...(teacher ? { teacher_sha256: await hashManifest(teacher) } : {}),
  };
  return { base, teacher, exits, data, hashes };
}

function isFolder(teacher: string): boolean {
  return teacher !== "self" && teacher !== "base";
}

async function openTeacher(dir: string, base: Checkpoint): Promise<Checkpoint> {
  const teacher = await openCheckpoint(dir);
  if (isDeepStrictEqual(teacher.manifest.architecture, base.manifest.architecture)) return teacher;
  throw new TrainError(`${dir}: cannot teach, its architecture is not that of ${base.dir}`);
}

async function hashManifest({ dir }: Checkpoint): Promise<string> {
  return createHash("sha256")
    .update(await readFile(join(dir, MANIFEST_FILE)))
    .digest("hex");
}

async function reopen(folder: RunFolder, changes: ResumeSettings) {
  const record = await folder.record();
  const config = { ...record.config, ...changes };
  const material = await loadMaterial(config);
  if (material.hashes.base_sha256 !== record.base_sha256) {
    throw new TrainError(`${config.base}: is not the base that the run in ${folder.path} started from`);
  }
  if (material.hashes.data_sha256 !== record.data_sha256) {
    throw new TrainError(`${config.data}: is not the data that the run in ${folder.path} started with`);
  }
  if (material.hashes.teacher_sha256 !== record.teacher_sha256) {
    throw new TrainError(`${config.teacher}: is not the teacher that the run in ${folder.path} started with`);
  }
  const { adapters_sha256 } = record;
  const hashes = { ...material.hashes, ...(adapters_sha256 === undefined ? {} : { adapters_sha256 }) };
  return { config, material, hashes };
}

async function newTrainer(
  config: TrainConfig,
  { base, teacher, exits, data }: Material,
  state: RunState | undefined,
  adapters?: Parameters,
) {
  const parameters = await loadParameters(base);
  const taughtBy = config.teacher === "base" ? parameters : teacher && (await loadParameters(teacher));
  return new Trainer(base.manifest.architecture, parameters, taughtBy, config, exits, data, state, adapters);
}

async function startingAdapters(config: TrainConfig, { manifest }: Checkpoint) {
  const { initAdapters: file } = config;
  if (file === undefined) return { adapters: undefined, adapters_sha256: undefined };
  const adapters = await readAdapters(file, manifest.architecture, initialAdapters(manifest.architecture, config));
  return { adapters, adapters_sha256: await hashFile(file) };
}

async function train(
  folder: RunFolder,
  trainer: Trainer,
  config: TrainConfig,
  { base, exits, data }: Material,
  signal: AbortSignal,
  listener: TrainListener,
): Promise<RunResult> {
  const { state, steps } = trainer;
  const save = async () => {
    await writeState(folder.statePath, state);
    listener.onSaved?.(state.step);
  };
  const evaluate = async () => {
    const scores = await trainer.evaluate();
    await folder.log({ type: "eval", step: state.step, tokens: state.tokens, exits: byDepth(scores) });
    await folder.plot();
    listener.onEvaluation?.(state.step, scores);
  };
  await folder.lock();
  try {
    listener.onData?.({ ...data, train: data.train.length, heldOut: data.heldOut.length });
    await folder.forgetFrom(state.step);
    const started = Date.now();
    let saved = Date.now();
    const first = state.step;
    let outOfTime = false;
    while (state.step < steps && !signal.aborted && !outOfTime) {
      if (state.step % config.evalEvery === 0) await evaluate();
      const { tokens, seconds } = state;
      const due = state.step > first && Date.now() - saved > config.saveEvery * 60_000;
      const result = await trainer.step(due ? save : undefined);
      if (due) saved = Date.now();
      const tokensPerSecond = (state.tokens - tokens) / (state.seconds - seconds);
      await folder.log(stepLine(result, tokensPerSecond));
      listener.onStep?.({ ...result, steps, tokensPerSecond });
      outOfTime = config.maxMinutes !== undefined && Date.now() - started > config.maxMinutes * 60_000;
    }
    const complete = state.step >= steps || outOfTime;
    // Before it is saved: a state whose loss is no number must not replace a good one.
    if (complete) await evaluate();
    await save();
    if (!complete) return { step: state.step, steps, checkpoint: undefined };
    const parameters = await trainer.trainedParameters();
    await exportRun(folder.checkpointPath, { base, exits, parameters, config, step: state.step });
    return { step: state.step, steps, checkpoint: folder.checkpointPath };
  } finally {
    await folder.unlock();
  }
}

function stepLine(result: StepResult, tokensPerSecond: number): object {
  const { step, epoch, loss, exits, tokens } = result;
  return {
    type: "step",
    step,
    epoch,
    loss: rounded(loss),
    exits: byDepth(exits),
    learning_rate: result.learningRate,
    gradient_norm: rounded(result.gradientNorm),
    tokens,
    tokens_per_second: Number(tokensPerSecond.toFixed(1)),
  };
}

/** `{ "12": { loss, … }, … }`. */
function byDepth(scores: readonly ({ depth: number } & object)[]): object {
  return Object.fromEntries(
    scores.map(({ depth, ...figures }) => [
      depth,
      Object.fromEntries(Object.entries(figures).map(([name, value]) => [name, rounded(Number(value))])),
    ]),
  );
}

/** Float32's digits: enough to compare runs bit by bit, few enough to read. */
function rounded(value: number): number {
  return Number(value.toPrecision(9));
}
