import { rename, rm, writeFile } from "node:fs/promises";
import type { Architecture } from "@fathom/shared";
import { CheckpointError } from "../checkpoint/checkpoint-error.ts";
import { encodeValues } from "../checkpoint/export/dtype.ts";
import { safetensorsHeader } from "../checkpoint/export/shards.ts";
import { SafetensorsFile } from "../checkpoint/huggingface/safetensors.ts";
import { type Parameters, parameter } from "./parameters.ts";
import { layerTensorShape } from "./tensors.ts";
import { TrainError } from "./train-error.ts";

/**
 * Writes low-rank adapters, rounded to float16, as a safetensors file from which another run can go on.
 * @throws TrainError when a value cannot be stored or the file cannot be written; a file that was there is untouched then
 */
export async function writeAdapters(path: string, a: Architecture, adapters: Parameters): Promise<void> {
  const tensors = [...adapters].map(([name, { length }]) => ({
    name,
    shape: shapeOf(a, name, length),
    source: name,
    from: 0,
    length,
  }));
  const partial = `${path}.partial`;
  try {
    const values = [...adapters.values()].map((adapter) => encodeValues(adapter, "fp16"));
    await writeFile(partial, Buffer.concat([safetensorsHeader(tensors, "fp16"), ...values]));
    await rename(partial, path);
  } catch (error) {
    await rm(partial, { force: true });
    throw new TrainError(
      `${path}: the adapters could not be written (${error instanceof Error ? error.message : error})`,
    );
  }
}

/**
 * Reads adapters to start from.
 * @param like adapters with the names and sizes that the run needs
 * @throws TrainError or CheckpointError naming the file and the adapter that does not fit.
 */
export async function readAdapters(path: string, a: Architecture, like: Parameters): Promise<Parameters> {
  const file = await SafetensorsFile.open(path);
  try {
    const stranger = [...file.tensors.keys()].find((name) => !like.has(name));
    if (stranger !== undefined) {
      throw new CheckpointError(path, `'${stranger}' is no adapter of a layer that this run trains`);
    }
    const adapters: Parameters = new Map();
    for (const name of like.keys()) {
      const shape = shapeOf(a, name, parameter(like, name).length);
      const found = file.tensors.get(name)?.shape;
      if (found !== undefined && found.join() !== shape.join()) {
        throw new CheckpointError(path, `adapter '${name}' has shape [${found}], but the run's rank needs [${shape}]`);
      }
      const values = new Float32Array(parameter(like, name).length);
      let done = 0;
      for await (const chunk of file.read(name, shape)) {
        values.set(chunk, done);
        done += chunk.length;
      }
      adapters.set(name, values);
    }
    return adapters;
  } finally {
    await file.close();
  }
}

function shapeOf(a: Architecture, name: string, values: number): number[] {
  return layerTensorShape(a, name.replace(/^layers\.\d+\./, ""), values);
}
