import { readdir, stat } from "node:fs/promises";
import { basename, join, resolve } from "node:path";
import { type Architecture, tensorShapes } from "@fathom/shared";
import { z } from "zod";
import { CheckpointError } from "../checkpoint-error.ts";
import { concatenate, type ModelSource } from "../model-source.ts";
import { parseLlamaConfig } from "./llama-config.ts";
import { parseJson, readText } from "./read-text.ts";
import { SafetensorsFile } from "./safetensors.ts";
import { sourceTensors } from "./tensor-names.ts";

const INDEX_FILE = "model.safetensors.index.json";
const SINGLE_FILE = "model.safetensors";

const Index = z.looseObject({ weight_map: z.record(z.string(), z.string()) });
const GenerationConfig = z.looseObject({
  eos_token_id: z.union([z.int().min(0), z.array(z.int().min(0))]).nullish(),
});

/**
 * Opens a Hugging Face folder: `config.json`, safetensors in one file or sharded with an index, and the tokenizer if there is one.
 * @throws CheckpointError when it is not a LLaMA model, incomplete or malformed.
 */
export async function openHuggingFaceFolder(dir: string): Promise<ModelSource> {
  const configPath = join(dir, "config.json");
  const configText = await readText(configPath);
  if (configText === undefined) throw new CheckpointError(configPath, "is missing");
  const config = parseLlamaConfig(configPath, parseJson(configPath, configText));
  const shards = await openShards(dir);
  try {
    requireTensors(dir, config.architecture, shards);
    const generation = await readGenerationConfig(join(dir, "generation_config.json"));
    return {
      architecture: config.architecture,
      tokenizer: {
        bos_token_id: config.bosTokenId,
        eos_token_ids: [...new Set([...generation, ...config.eosTokenIds])],
      },
      files: await readTokenizerFiles(dir),
      name: basename(resolve(dir)),
      license: await readLicense(join(dir, "README.md")),
      tensor: (name) => readPacked(config.architecture, name, shards),
      close: async () => {
        for (const shard of new Set(shards.values())) await shard.close();
      },
    };
  } catch (error) {
    for (const shard of new Set(shards.values())) await shard.close();
    throw error;
  }
}

async function* readPacked(a: Architecture, name: string, shards: Map<string, SafetensorsFile>) {
  const parts = sourceTensors(a, name).map(([source, shape]) => {
    const shard = shards.get(source);
    if (!shard) throw new Error(`tensor '${source}' was not checked`);
    return shard.read(source, shape);
  });
  yield* concatenate(...parts);
}

/** All tensors by name, each with the file that holds it. */
async function openShards(dir: string): Promise<Map<string, SafetensorsFile>> {
  const indexPath = join(dir, INDEX_FILE);
  const indexText = await readText(indexPath);
  if (indexText === undefined) {
    const path = join(dir, SINGLE_FILE);
    if (!(await isFile(path))) throw new CheckpointError(path, await explainNoWeights(dir));
    const file = await SafetensorsFile.open(path);
    return new Map([...file.tensors.keys()].map((name) => [name, file]));
  }
  const index = Index.safeParse(parseJson(indexPath, indexText));
  if (!index.success) throw new CheckpointError(indexPath, "is malformed: it needs a 'weight_map' of tensor to file");
  const files = new Map<string, SafetensorsFile>();
  const shards = new Map<string, SafetensorsFile>();
  try {
    for (const [name, file] of Object.entries(index.data.weight_map)) {
      // A file name only: an index must not reach outside its folder.
      if (basename(file) !== file || !file.endsWith(".safetensors")) {
        throw new CheckpointError(indexPath, `is malformed: '${file}' is not the name of a safetensors file`);
      }
      const shard = files.get(file) ?? (await SafetensorsFile.open(join(dir, file)));
      files.set(file, shard);
      if (!shard.tensors.has(name)) {
        throw new CheckpointError(join(dir, file), `tensor '${name}' is missing, but ${INDEX_FILE} lists it here`);
      }
      shards.set(name, shard);
    }
  } catch (error) {
    for (const shard of files.values()) await shard.close();
    throw error;
  }
  return shards;
}

/** Before anything is written: every tensor is there, so that no import dies half-way for a missing one. */
function requireTensors(dir: string, a: Architecture, shards: Map<string, SafetensorsFile>): void {
  for (const name of tensorShapes(a).keys()) {
    for (const [source, shape] of sourceTensors(a, name)) {
      const shard = shards.get(source);
      if (!shard) throw new CheckpointError(dir, `tensor '${source}' is missing`);
      shard.requireTensor(source, shape);
    }
  }
  for (const name of shards.keys()) {
    if (name.endsWith(".bias")) throw new CheckpointError(dir, `tensor '${name}' is not supported`);
  }
}

async function explainNoWeights(dir: string): Promise<string> {
  const entries = await readdir(dir);
  const others = entries.filter((entry) => /\.(bin|pth|pt|h5|gguf)$/.test(entry));
  return others.length > 0 ? `is missing; the folder holds ${others.join(", ")} instead` : "is missing";
}

/** The tokenizer as it is, except that a chat template in a file of its own moves into tokenizer_config.json. */
async function readTokenizerFiles(dir: string): Promise<Map<string, string>> {
  const files = new Map<string, string>();
  const tokenizer = await readText(join(dir, "tokenizer.json"));
  if (tokenizer === undefined) return files;
  files.set("tokenizer.json", tokenizer);
  const configPath = join(dir, "tokenizer_config.json");
  const configText = await readText(configPath);
  const template = await readText(join(dir, "chat_template.jinja"));
  if (template === undefined) {
    if (configText !== undefined) files.set("tokenizer_config.json", configText);
    return files;
  }
  const config = z.looseObject({}).safeParse(parseJson(configPath, configText ?? "{}"));
  if (!config.success) throw new CheckpointError(configPath, "is malformed: not a JSON object");
  const merged = { ...config.data, chat_template: template };
  return files.set("tokenizer_config.json", `${JSON.stringify(merged, null, 2)}\n`);
}

async function readGenerationConfig(path: string): Promise<number[]> {
  const text = await readText(path);
  if (text === undefined) return [];
  const result = GenerationConfig.safeParse(parseJson(path, text));
  if (!result.success) throw new CheckpointError(path, "'eos_token_id' is not a token id or a list of them");
  return [result.data.eos_token_id ?? []].flat();
}

/** The `license:` line of a model card's front matter. */
async function readLicense(path: string): Promise<string | undefined> {
  const text = await readText(path);
  const frontMatter = text && /^---\r?\n([\s\S]*?)\r?\n---/.exec(text)?.[1];
  return (frontMatter && /^license:[ \t]*["']?([A-Za-z0-9._-]+)/m.exec(frontMatter)?.[1]) || undefined;
}

async function isFile(path: string): Promise<boolean> {
  return stat(path).then(
    (info) => info.isFile(),
    () => false,
  );
}
