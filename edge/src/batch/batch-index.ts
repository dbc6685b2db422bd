import { isObjectId } from "../files/object-id.ts";

/** Which batches a tenant has: an empty object of R2 for each, under a name that sorts the newest first. */
export class BatchIndex {
  readonly #bucket: R2Bucket;
  readonly #prefix: string;

  constructor(bucket: R2Bucket, tenant: string) {
    this.#bucket = bucket;
    this.#prefix = `batches/${tenant}/`;
  }

  async add(id: string): Promise<void> {
    await this.#bucket.put(this.#prefix + id, "");
  }

  /** Asked before a batch's own object is, so that a name that was made up creates none. */
  async has(id: string): Promise<boolean> {
    return isObjectId("batch_", id) && (await this.#bucket.head(this.#prefix + id)) !== null;
  }

  /** Ids of the newest batches, after the given one. */
  async list(limit: number, after: string | undefined): Promise<{ ids: string[]; more: boolean }> {
    const { objects, truncated } = await this.#bucket.list({
      prefix: this.#prefix,
      startAfter: this.#prefix + (after ?? ""),
      limit,
    });
    return { ids: objects.map(({ key }) => key.slice(this.#prefix.length)), more: truncated };
  }
}
