import { Worker } from "node:worker_threads";
import { ApiError } from "@fathom/shared";

/** Prompts that may wait to be encoded; more are refused. */
const MAX_WAITING = 32;

/** What the thread is started with: the contents of the tokenizer's two files. */
export interface EncodeThreadData {
  json: unknown;
  config: unknown;
}

export interface EncodeJob {
  id: number;
  text: string;
  addSpecialTokens: boolean;
}

export interface EncodeResult {
  id: number;
  ids: number[];
}

/**
 * Encodes long texts in a thread of its own. A megabyte can take seconds, which the streams of other requests should not
 * have to wait for. The thread starts with the first job and keeps the process alive only while it has one.
 */
export class EncodeThread {
  readonly #data: EncodeThreadData;
  readonly #jobs = new Map<number, PromiseWithResolvers<number[]>>();
  #worker: Worker | undefined;
  #next = 0;

  constructor(data: EncodeThreadData) {
    this.#data = data;
  }

  /** @throws ApiError `overloaded` when too many texts wait, `internal_error` when the thread fails. */
  encode(text: string, addSpecialTokens: boolean): Promise<number[]> {
    if (this.#jobs.size >= MAX_WAITING) {
      throw new ApiError("overloaded", "Too many long prompts are waiting; try again shortly.", { retryAfter: 5 });
    }
    const id = this.#next++;
    const result = Promise.withResolvers<number[]>();
    this.#jobs.set(id, result);
    this.#worker ??= this.#start();
    this.#worker.ref();
    const job: EncodeJob = { id, text, addSpecialTokens };
    this.#worker.postMessage(job);
    return result.promise;
  }

  #start(): Worker {
    const worker = new Worker(new URL("./encode-worker.ts", import.meta.url), {
      workerData: this.#data,
      name: "tokenizer",
    });
    worker.on("message", ({ id, ids }: EncodeResult) => {
      this.#jobs.get(id)?.resolve(ids);
      this.#jobs.delete(id);
      if (this.#jobs.size === 0) worker.unref();
    });
    worker.on("error", (cause) => {
      this.#worker = undefined;
      for (const job of this.#jobs.values()) {
        job.reject(new ApiError("internal_error", "The prompt could not be encoded.", { cause }));
      }
      this.#jobs.clear();
    });
    return worker;
  }
}
