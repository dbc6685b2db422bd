import type { Architecture, Manifest } from "@fathom/shared";

/** A model to import, whatever it is stored in. */
export interface ModelSource {
  architecture: Architecture;
  tokenizer: Manifest["tokenizer"];
  /** Files to put beside the manifest, such as `tokenizer.json`; empty when the model has no tokenizer. */
  files: Map<string, string | Uint8Array>;
  /** Name of the model where the source knows it. */
  name: string | undefined;
  license: string | undefined;
  /**
   * The tensor of this name (see `tensorShapes`), in chunks of whole rows, q and k in rotate-half order. A chunk's memory
   * is used again for the next one.
   * @throws CheckpointError when the source has no such tensor or its shape differs.
   */
  tensor(name: string): AsyncIterable<Float32Array>;
  close(): Promise<void>;
}

/** Values per chunk: large enough to keep disk and conversion busy, small beside any model. */
const CHUNK_VALUES = 1 << 20;

/** Rows of `rowLength` values that make up one chunk: at least one, and a multiple of `unit`. */
export function rowsPerChunk(rowLength: number, unit = 1): number {
  return Math.max(1, Math.floor(CHUNK_VALUES / (rowLength * unit))) * unit;
}

/** One source after another. */
export async function* concatenate(...parts: AsyncIterable<Float32Array>[]): AsyncGenerator<Float32Array> {
  for (const part of parts) yield* part;
}
