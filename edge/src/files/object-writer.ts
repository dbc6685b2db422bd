/** R2 wants parts of one size, 5 MiB or more; this much of an object is in memory. */
const PART_BYTES = 8 * 1024 * 1024;

/** Writes an object of unknown length to R2, holding one part of it at a time. Nothing is to be seen before `close`. */
export class ObjectWriter {
  readonly #bucket: R2Bucket;
  readonly #key: string;
  readonly #options: R2MultipartOptions;
  readonly #parts: R2UploadedPart[] = [];
  #upload: R2MultipartUpload | undefined;
  #part = new Uint8Array(64 * 1024);
  #used = 0;
  #size = 0;

  constructor(bucket: R2Bucket, key: string, options: R2MultipartOptions) {
    this.#bucket = bucket;
    this.#key = key;
    this.#options = options;
  }

  /** Bytes written so far. */
  get size(): number {
    return this.#size;
  }

  async write(bytes: Uint8Array): Promise<void> {
    this.#size += bytes.length;
    for (let from = 0; from < bytes.length; ) {
      const piece = bytes.subarray(from, from + PART_BYTES - this.#used);
      this.#grow(this.#used + piece.length);
      this.#part.set(piece, this.#used);
      this.#used += piece.length;
      from += piece.length;
      if (this.#used === PART_BYTES) await this.#flush();
    }
  }

  async close(): Promise<void> {
    if (!this.#upload) {
      await this.#bucket.put(this.#key, this.#part.subarray(0, this.#used), this.#options);
      return;
    }
    if (this.#used > 0) await this.#flush();
    await this.#upload.complete(this.#parts);
  }

  /** Leaves nothing behind. */
  async abort(): Promise<void> {
    await this.#upload?.abort();
  }

  #grow(size: number): void {
    if (size <= this.#part.length) return;
    const grown = new Uint8Array(Math.min(PART_BYTES, Math.max(size, this.#part.length * 2)));
    grown.set(this.#part.subarray(0, this.#used));
    this.#part = grown;
  }

  async #flush(): Promise<void> {
    this.#upload ??= await this.#bucket.createMultipartUpload(this.#key, this.#options);
    this.#parts.push(await this.#upload.uploadPart(this.#parts.length + 1, this.#part.slice(0, this.#used)));
    this.#used = 0;
  }
}
