import {
  type BlockLayout,
  type ByteRange,
  blockLayout,
  type Manifest,
  type StoredTensor,
  tensorShapes,
  type WeightFormat,
} from "@fathom/shared";
import { CheckpointError } from "./checkpoint-error.ts";
import { DEFAULT_BLOCK_SIZE, isBlockSize, storedBytes } from "./stored-bytes.ts";

/** Every range starts at a multiple of this, so that any of the formats can be viewed in place. */
export const RANGE_ALIGNMENT = 64;

/**
 * Checks that a manifest's tensors are exactly those of its architecture, each with the right shape and format, and that
 * every range has the right length and lies inside a listed file.
 * @param manifestPath named in errors.
 * @throws CheckpointError that names the tensor.
 */
export function checkTensors(manifestPath: string, manifest: Manifest): void {
  const bad = (reason: string) => new CheckpointError(manifestPath, reason);
  const files = new Map(manifest.files.map((file) => [file.path, file.bytes]));
  if (files.size !== manifest.files.length) throw bad("lists a file twice");
  const blockSize = manifest.quantization.block_size ?? DEFAULT_BLOCK_SIZE;
  if (!isBlockSize(blockSize))
    throw bad(`'quantization.block_size': ${blockSize} is not a power of two of at least 16`);

  const expected = tensorShapes(manifest.architecture, manifest.exit_heads);
  for (const [name, shape] of expected) {
    const tensor = manifest.tensors[name];
    if (tensor === undefined) throw bad(`tensor '${name}' is missing`);
    if (tensor.shape.join() !== shape.join()) {
      throw bad(`tensor '${name}' has shape [${tensor.shape}], but the architecture needs [${shape}]`);
    }
    const format = tensorFormat(manifest.quantization, name, shape);
    if (tensor.format !== format) throw bad(`tensor '${name}' is ${tensor.format}, but should be ${format}`);
    checkRanges(name, tensor, blockLayout(manifest.quantization, name), files, bad);
  }
  for (const name of Object.keys(manifest.tensors)) {
    if (!expected.has(name)) throw bad(`tensor '${name}' does not belong to the architecture`);
  }
}

/** The format that a tensor is stored in: norm vectors are fp32 always, matrices as the quantisation says. */
export function tensorFormat(
  quantization: Manifest["quantization"],
  name: string,
  shape: readonly number[],
): WeightFormat {
  if (shape.length === 1) return "fp32";
  if (name === "embed") return quantization.embedding;
  return name === "head" || name.startsWith("exits.") ? quantization.head : quantization.layers;
}

function checkRanges(
  name: string,
  tensor: StoredTensor,
  layout: BlockLayout,
  files: Map<string, number>,
  bad: (reason: string) => CheckpointError,
): void {
  const bytes = storedBytes(tensor.format, tensor.shape, layout);
  const parts: [part: string, range: ByteRange | undefined, bytes: number, optional: boolean][] = [
    ["data", tensor.data, bytes.data, false],
    ["scales", tensor.scales, bytes.scales, false],
    ["zero_points", tensor.zero_points, bytes.zeroPoints, true],
  ];
  for (const [part, range, expected, optional] of parts) {
    const label = `tensor '${name}', '${part}'`;
    if (range === undefined) {
      if (expected > 0 && !optional) throw bad(`${label}: is missing`);
      continue;
    }
    if (expected === 0) throw bad(`${label}: ${tensor.format} has none`);
    if (range.bytes !== expected) throw bad(`${label}: has ${range.bytes} bytes, but its shape needs ${expected}`);
    if (range.offset % RANGE_ALIGNMENT !== 0) {
      throw bad(`${label}: offset ${range.offset} is not a multiple of ${RANGE_ALIGNMENT}`);
    }
    const size = files.get(range.file);
    if (size === undefined) throw bad(`${label}: '${range.file}' is not among the files`);
    if (range.offset + range.bytes > size) {
      throw bad(
        `${label}: bytes ${range.offset}..${range.offset + range.bytes} lie outside '${range.file}' (${size} bytes)`,
      );
    }
  }
}
