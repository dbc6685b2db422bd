import { createHash, randomBytes } from "node:crypto";
import { mkdir, readdir, readFile, rename, rm, writeFile } from "node:fs/promises";
import { basename, dirname, join, resolve } from "node:path";
import { blockLayout, MANIFEST_FORMAT, Manifest, type StoredTensor, tensorShapes } from "@fathom/shared";
import { tensorFormat } from "./check-tensors.ts";
import { CheckpointError, isErrno, writingTo } from "./checkpoint-error.ts";
import type { TensorBytes } from "./dequantize.ts";
import { encodeRows } from "./encode-rows.ts";
import { MANIFEST_FILE } from "./open-checkpoint.ts";
import { storedBytes } from "./stored-bytes.ts";
import { WeightFileWriter } from "./weight-file-writer.ts";

/** What the manifest says beside the tensors and files, which the writer fills in. */
export type CheckpointHeader = Omit<Manifest, "format" | "version" | "tensors" | "files">;

/** A tensor's values: all at once, or as chunks of whole rows. A chunk is used before the next one is asked for. */
export type TensorValues = Float32Array | Iterable<Float32Array> | AsyncIterable<Float32Array>;

/** A whole tensor in the format that it is stored in. */
export class EncodedTensor {
  readonly bytes: TensorBytes;

  constructor(bytes: TensorBytes) {
    this.bytes = bytes;
  }
}

export interface WriterOptions {
  /** Replace an existing checkpoint. A non-empty folder that holds no checkpoint is never replaced. */
  force?: boolean;
}

/**
 * Writes a nested checkpoint, one tensor at a time, into a temporary folder beside the target; `finish` moves it into place.
 * Until then the target is untouched; `abort` removes everything that was written.
 */
export class CheckpointWriter {
  /** As the caller writes it, for errors. */
  readonly #name: string;
  readonly #dir: string;
  readonly #temporary: string;
  readonly #header: CheckpointHeader;
  readonly #force: boolean;
  readonly #weights: WeightFileWriter;
  readonly #shapes: [name: string, shape: number[]][];
  readonly #tensors: Record<string, StoredTensor> = {};
  readonly #extraFiles: Manifest["files"] = [];
  #next = 0;

  private constructor(dir: string, header: CheckpointHeader, force: boolean) {
    this.#name = dir;
    this.#dir = resolve(dir);
    this.#temporary = join(dirname(this.#dir), `.${basename(this.#dir)}.partial-${randomBytes(4).toString("hex")}`);
    this.#header = header;
    this.#force = force;
    this.#weights = new WeightFileWriter(this.#temporary);
    this.#shapes = [...tensorShapes(header.architecture, header.exit_heads)];
  }

  /** @throws CheckpointError when the folder exists, is not empty and may not be replaced. */
  static async create(dir: string, header: CheckpointHeader, options: WriterOptions = {}): Promise<CheckpointWriter> {
    const force = options.force ?? false;
    await requireFreeTarget(dir, force);
    const writer = new CheckpointWriter(dir, header, force);
    await writingTo(dir, () => mkdir(writer.#temporary, { recursive: true }));
    return writer;
  }

  /**
   * Stores the next tensor in the format that the header's quantisation gives it.
   * @param name must follow the order of `tensorShapes`.
   * @throws RangeError when the number of values is wrong or one of them cannot be stored; CheckpointError when the disk is
   *   full.
   */
  async writeTensor(name: string, values: TensorValues | EncodedTensor): Promise<void> {
    await writingTo(this.#name, () => this.#writeTensor(name, values));
  }

  async #writeTensor(name: string, values: TensorValues | EncodedTensor): Promise<void> {
    const [expected, shape] = this.#shapes[this.#next] ?? [undefined, []];
    if (name !== expected) throw new Error(`tensor '${name}' is out of order: '${expected}' is next`);
    this.#next++;
    const { quantization } = this.#header;
    const format = tensorFormat(quantization, name, shape);
    const layout = blockLayout(quantization, name);
    const bytes = storedBytes(format, shape, layout);
    const total = shape.reduce((product, size) => product * size, 1);
    const rowLength = shape.at(-1) ?? 1;
    const rows = total / rowLength;

    await this.#weights.beginTensor(bytes.data + bytes.scales + bytes.zeroPoints);
    const tensor: StoredTensor = { format, shape, data: await this.#weights.beginRange(bytes.data) };
    // Scales and zero points lie behind the data and are a sixteenth of it: kept until the data is written.
    const scales = new Uint8Array(bytes.scales);
    const zeroPoints = new Uint8Array(bytes.zeroPoints);
    let done = 0;
    if (values instanceof EncodedTensor) {
      const { data, scales: ownScales = new Uint8Array(0), zeroPoints: ownZeros = new Uint8Array(0) } = values.bytes;
      if (data.length !== bytes.data || ownScales.length !== scales.length || ownZeros.length !== zeroPoints.length) {
        throw new RangeError(`tensor '${name}': the encoded bytes do not fit the shape [${shape}]`);
      }
      await this.#weights.append(data);
      scales.set(ownScales);
      zeroPoints.set(ownZeros);
      done = total;
      values = [];
    }
    for await (const chunk of values instanceof Float32Array ? [values] : values) {
      if (chunk.length % rowLength !== 0 || done + chunk.length > total) {
        throw new RangeError(`tensor '${name}': ${done} + ${chunk.length} values do not fit the shape [${shape}]`);
      }
      const encoded = encodeChunk(name, () => encodeRows(format, chunk, rowLength, layout));
      await this.#weights.append(encoded.data);
      const row = done / rowLength;
      if (encoded.scales) scales.set(encoded.scales, row * (bytes.scales / rows));
      if (encoded.zeroPoints) zeroPoints.set(encoded.zeroPoints, row * (bytes.zeroPoints / rows));
      done += chunk.length;
    }
    if (done !== total) throw new RangeError(`tensor '${name}': ${done} values do not fill the shape [${shape}]`);
    if (bytes.scales > 0) {
      tensor.scales = await this.#weights.beginRange(bytes.scales);
      await this.#weights.append(scales);
    }
    if (bytes.zeroPoints > 0) {
      tensor.zero_points = await this.#weights.beginRange(bytes.zeroPoints);
      await this.#weights.append(zeroPoints);
    }
    this.#tensors[name] = tensor;
  }

  /** Adds a small file such as `tokenizer.json` to the checkpoint's folder and lists it in the manifest. */
  async writeFile(path: string, contents: string | Uint8Array): Promise<void> {
    const bytes = typeof contents === "string" ? Buffer.from(contents, "utf8") : contents;
    const target = join(this.#temporary, path);
    await writingTo(this.#name, async () => {
      await mkdir(dirname(target), { recursive: true });
      await writeFile(target, bytes, { flag: "wx" });
    });
    this.#extraFiles.push({ path, bytes: bytes.length, sha256: createHash("sha256").update(bytes).digest("hex") });
  }

  /**
   * Writes the manifest and moves the folder into place.
   * @throws Error when a tensor is missing; ZodError when the header does not fit the manifest's schema.
   */
  async finish(): Promise<Manifest> {
    const missing = this.#shapes[this.#next];
    if (missing) throw new Error(`tensor '${missing[0]}' was not written`);
    await writingTo(this.#name, () => this.#weights.close());
    const manifest = Manifest.parse({
      format: MANIFEST_FORMAT,
      version: 1,
      ...this.#header,
      tensors: this.#tensors,
      files: [...this.#weights.files, ...this.#extraFiles],
    });
    await requireFreeTarget(this.#dir, this.#force);
    await writingTo(this.#name, async () => {
      await writeFile(join(this.#temporary, MANIFEST_FILE), `${JSON.stringify(manifest, null, 1)}\n`);
      await this.#moveIntoPlace();
    });
    return manifest;
  }

  /** Gives up: removes what was written. Calling it after `finish` does nothing. */
  async abort(): Promise<void> {
    await this.#weights.close().catch(() => undefined);
    await rm(this.#temporary, { recursive: true, force: true });
  }

  async #moveIntoPlace(): Promise<void> {
    const replaced = `${this.#temporary}.replaced`;
    const hadOld = await rename(this.#dir, replaced).then(
      () => true,
      (error: unknown) => {
        if (isErrno(error, "ENOENT")) return false;
        throw error;
      },
    );
    try {
      await rename(this.#temporary, this.#dir);
    } catch (error) {
      if (hadOld) await rename(replaced, this.#dir);
      throw error;
    }
    if (hadOld) await rm(replaced, { recursive: true, force: true });
  }
}

function encodeChunk<T>(name: string, encode: () => T): T {
  try {
    return encode();
  } catch (error) {
    if (error instanceof RangeError) throw new RangeError(`tensor '${name}': ${error.message}`, { cause: error });
    throw error;
  }
}

/**
 * Checks that a checkpoint may be written to `dir`: it is missing or empty, or with `force` holds a checkpoint.
 * @throws CheckpointError that says why not.
 */
export async function requireFreeTarget(dir: string, force: boolean): Promise<void> {
  let entries: string[];
  try {
    entries = await readdir(dir);
  } catch (error) {
    if (isErrno(error, "ENOENT")) return;
    throw new CheckpointError(dir, isErrno(error, "ENOTDIR") ? "is not a folder" : `cannot be read (${error})`);
  }
  if (entries.length === 0) return;
  if (!force) throw new CheckpointError(dir, "is not empty; use --force to replace a checkpoint");
  // A mistyped --out must never delete somebody's files.
  if (!(await holdsCheckpoint(dir))) {
    throw new CheckpointError(dir, "is not empty and holds no checkpoint, so --force does not replace it");
  }
}

async function holdsCheckpoint(dir: string): Promise<boolean> {
  try {
    const text = await readFile(join(dir, MANIFEST_FILE), "utf8");
    return text.includes(`"${MANIFEST_FORMAT}"`);
  } catch {
    return false;
  }
}
