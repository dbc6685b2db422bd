import { createHash, type Hash } from "node:crypto";
import { type FileHandle, mkdir, open } from "node:fs/promises";
import { join } from "node:path";
import type { ByteRange, Manifest } from "@fathom/shared";
import { RANGE_ALIGNMENT } from "./check-tensors.ts";

/** A tensor that would make a file larger than this starts a new one; hosts refuse or warn about larger files. */
const ROLL_OVER_BYTES = 40_000_000;
/** Larger ranges start at a page, so that ONNX Runtime can map them instead of copying. */
const PAGE_BYTES = 4096;
const PAGE_ALIGNED_FROM = 64 * 1024;

type FileEntry = Manifest["files"][number];

/** Appends tensor ranges to `weights/00001.bin`, `weights/00002.bin`, …, hashing what it writes. */
export class WeightFileWriter {
  readonly files: FileEntry[] = [];
  readonly #dir: string;
  #file: FileHandle | undefined;
  #hash: Hash | undefined;
  #path = "";
  #size = 0;

  constructor(dir: string) {
    this.#dir = dir;
  }

  /** Announces a tensor of `bytes`: rolls over to a new file where the current one would become too large. */
  async beginTensor(bytes: number): Promise<void> {
    if (this.#file && this.#size > 0 && this.#size + bytes > ROLL_OVER_BYTES) await this.close();
    if (this.#file) return;
    this.#path = `weights/${String(this.files.length + 1).padStart(5, "0")}.bin`;
    await mkdir(join(this.#dir, "weights"), { recursive: true });
    this.#file = await open(join(this.#dir, this.#path), "wx");
    this.#hash = createHash("sha256");
    this.#size = 0;
  }

  /** Pads to the alignment that a range of `bytes` needs and returns the range that the following bytes will fill. */
  async beginRange(bytes: number): Promise<ByteRange> {
    const alignment = bytes >= PAGE_ALIGNED_FROM ? PAGE_BYTES : RANGE_ALIGNMENT;
    const excess = this.#size % alignment;
    if (excess > 0) await this.append(new Uint8Array(alignment - excess));
    return { file: this.#path, offset: this.#size, bytes };
  }

  async append(bytes: Uint8Array): Promise<void> {
    if (!this.#file || !this.#hash) throw new Error("append() needs a tensor to be begun");
    let done = 0;
    while (done < bytes.length) done += (await this.#file.write(bytes, done)).bytesWritten;
    this.#hash.update(bytes);
    this.#size += bytes.length;
  }

  /** Closes the current file and lists it. */
  async close(): Promise<void> {
    const [file, hash] = [this.#file, this.#hash];
    this.#file = undefined;
    if (!file || !hash) return;
    try {
      await file.sync();
    } finally {
      await file.close();
    }
    this.files.push({ path: this.#path, bytes: this.#size, sha256: hash.digest("hex") });
  }
}
