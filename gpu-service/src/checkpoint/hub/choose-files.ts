import { CheckpointError } from "../checkpoint-error.ts";
import type { HubFile, HubModel } from "./hub-client.ts";

/** Beside the weights, what an import reads. */
const SMALL_FILES = [
  "config.json",
  "generation_config.json",
  "tokenizer.json",
  "tokenizer_config.json",
  "chat_template.jinja",
  "README.md",
];
const INDEX_FILE = "model.safetensors.index.json";
/** A plain name: the hub's answer must not write outside the download folder. */
const PLAIN_PATH = /^(?!\.)[A-Za-z0-9._-]+(\/(?!\.)[A-Za-z0-9._-]+)*$/;

export interface ModelFiles {
  /** To be downloaded first: they tell whether the weights are worth it. */
  small: HubFile[];
  weights: HubFile[];
}

/** The files of a safetensors model. @throws CheckpointError when it has none, naming what it has instead. */
export function chooseSafetensors(model: HubModel): ModelFiles {
  const byPath = new Map(model.files.map((file) => [file.path, file]));
  const small = SMALL_FILES.flatMap((path) => byPath.get(path) ?? []);
  const index = byPath.get(INDEX_FILE);
  const single = byPath.get("model.safetensors");
  if (index) {
    const shards = model.files.filter(({ path }) => /^model-\d{5}-of-\d{5}\.safetensors$/.test(path));
    return { small: [...small, index], weights: shards };
  }
  if (single) return { small, weights: [single] };
  const gguf = model.files.filter(({ path }) => path.endsWith(".gguf"));
  const hint = gguf.length > 0 ? `; name one of its GGUF files: ${gguf.map(({ path }) => path).join(", ")}` : "";
  throw new CheckpointError(model.repo, `has no safetensors weights${hint}`);
}

/** One file of a model. @throws CheckpointError when there is none of this name. */
export function chooseFile(model: HubModel, path: string): HubFile {
  const file = model.files.find((candidate) => candidate.path === path);
  if (file && PLAIN_PATH.test(path)) return file;
  throw new CheckpointError(model.repo, `has no file '${path}'`);
}
