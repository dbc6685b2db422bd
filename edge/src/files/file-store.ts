import { z } from "zod";
import { isObjectId } from "./object-id.ts";
import { ObjectWriter } from "./object-writer.ts";

export const FilePurpose = z.enum(["batch", "batch_output"]);
export type FilePurpose = z.infer<typeof FilePurpose>;

const FileFacts = z.object({ filename: z.string(), purpose: FilePurpose, created: z.coerce.number().int() });

/** A file as OpenAI describes it. */
export interface FileDescription {
  id: string;
  object: "file";
  bytes: number;
  /** Seconds since the epoch. */
  created_at: number;
  filename: string;
  purpose: FilePurpose;
  status: "processed";
}

/** The files of one tenant in R2: another tenant's are not there. */
export class FileStore {
  readonly #bucket: R2Bucket;
  readonly #prefix: string;

  constructor(bucket: R2Bucket, tenant: string) {
    this.#bucket = bucket;
    this.#prefix = `files/${tenant}/`;
  }

  /** Begins a file; it is there once the writer is closed. */
  writer(id: string, file: { filename: string; purpose: FilePurpose }, now: number): ObjectWriter {
    return new ObjectWriter(this.#bucket, this.#prefix + id, { customMetadata: { ...file, created: String(now) } });
  }

  async describe(id: string): Promise<FileDescription | undefined> {
    if (!isObjectId("file-", id)) return undefined;
    const object = await this.#bucket.head(this.#prefix + id);
    return object ? this.#description(object) : undefined;
  }

  /** The file's bytes, or some of them. */
  async open(id: string, range?: { offset: number; length: number }): Promise<R2ObjectBody | undefined> {
    if (!isObjectId("file-", id)) return undefined;
    return (await this.#bucket.get(this.#prefix + id, range ? { range } : {})) ?? undefined;
  }

  async delete(id: string): Promise<void> {
    await this.#bucket.delete(this.#prefix + id);
  }

  /**
   * The newest files first.
   * @param after the id after which to begin, or undefined
   * @param purpose only files for this, if it is given
   */
  async list(
    limit: number,
    after: string | undefined,
    purpose: FilePurpose | undefined,
  ): Promise<{ files: FileDescription[]; more: boolean }> {
    const files: FileDescription[] = [];
    for (let startAfter = this.#prefix + (after ?? ""); ; ) {
      const include: ("customMetadata" | "httpMetadata")[] = ["customMetadata"];
      const page = await this.#bucket.list({ prefix: this.#prefix, startAfter, limit: 1000, include });
      for (const object of page.objects) {
        startAfter = object.key;
        const file = this.#description(object);
        if (purpose !== undefined && file.purpose !== purpose) continue;
        if (files.length === limit) return { files, more: true };
        files.push(file);
      }
      if (!page.truncated) return { files, more: false };
    }
  }

  #description(object: R2Object): FileDescription {
    const { filename, purpose, created } = FileFacts.parse(object.customMetadata);
    return {
      id: object.key.slice(this.#prefix.length),
      object: "file",
      bytes: object.size,
      created_at: Math.floor(created / 1000),
      filename,
      purpose,
      status: "processed",
    };
  }
}
