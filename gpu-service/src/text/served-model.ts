import type { Manifest } from "@fathom/shared";
import { openCheckpoint } from "../checkpoint/open-checkpoint.ts";
import { type LoadEngineOptions, loadEngine } from "../engine/load-engine.ts";
import type { Engine } from "../engine/types.ts";
import { TextModel } from "./text-model.ts";

/** One checkpoint, loaded. */
export interface ServedModel {
  manifest: Manifest;
  engine: Engine;
  /** Undefined for a checkpoint without a tokenizer: it takes and gives token ids only. */
  text: TextModel | undefined;
}

/**
 * Opens a checkpoint folder, checks it and loads its engine and tokenizer.
 * @throws CheckpointError that names the file; RangeError for exits that it does not have.
 */
export async function loadModel(dir: string, options: LoadEngineOptions = {}): Promise<ServedModel> {
  const { manifest } = await openCheckpoint(dir, { verify: options.verify ?? true });
  const text = await TextModel.load(dir);
  return { manifest, text, engine: await loadEngine(dir, { ...options, verify: false }) };
}
