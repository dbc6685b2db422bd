import { DurableObject } from "cloudflare:workers";
import { FileStore } from "../files/file-store.ts";
import { newObjectId } from "../files/object-id.ts";
import { settingsOf } from "../settings.ts";
import {
  type BatchDescription,
  type BatchEndpoint,
  type BatchHolder,
  type BatchRecord,
  type BatchSpec,
  describeBatch,
} from "./batch-record.ts";
import { isEnding } from "./batch-status.ts";
import { BatchStore, type ClaimedLine, type LineOutcome } from "./batch-store.ts";
import { unrunResult } from "./result-line.ts";
import { validateInput } from "./validate-input.ts";

/** What goes through the queue: the right to run some lines. Only one ticket of a batch is good at a time. */
export interface Ticket {
  tenant: string;
  batch: string;
  turn: number;
}

/** What a ticket's holder is to do. */
export interface Work {
  holder: BatchHolder;
  endpoint: BatchEndpoint;
  inputFileId: string;
  lines: ClaimedLine[];
}

/** How much longer than a request's time a silent ticket is waited for before it counts as lost, milliseconds. */
const GRACE_MS = 60_000;
const MAX_WAIT_SECONDS = 60;
const RETRY_MS = 15_000;

/**
 * One batch: the authority on where it and each of its lines are. Its lines are run by whoever holds its ticket; should the
 * ticket be lost, a new one is sent and the old one is void. Reached by `<tenant>/<id>`.
 */
export class Batch extends DurableObject<Env> {
  readonly #store: BatchStore;

  constructor(ctx: DurableObjectState, env: Env) {
    super(ctx, env);
    this.#store = new BatchStore(ctx.storage);
  }

  async create(spec: BatchSpec): Promise<BatchDescription> {
    this.#store.create(spec);
    await this.#wakeNow();
    return this.#describe(this.#store.batch() ?? fail());
  }

  describe(): BatchDescription | undefined {
    const batch = this.#store.batch();
    return batch && this.#describe(batch);
  }

  /** Stops what has not started. @returns whether it could be: a batch that has ended stays as it is. */
  async cancel(): Promise<{ batch: BatchDescription; cancelled: boolean } | undefined> {
    const before = this.#store.batch();
    if (!before) return undefined;
    const moved = this.#store.move("cancel", Date.now());
    if (moved) await this.#wakeNow();
    const batch = this.#store.batch() ?? before;
    return { batch: this.#describe(batch), cancelled: batch.status === "cancelling" };
  }

  /** Lines for the holder of a ticket; undefined when the ticket is void. */
  claim(turn: number, count: number): Work | undefined {
    const batch = this.#holding(turn);
    if (!batch) return undefined;
    this.#store.update({ seenAt: Date.now() });
    const { tenant, keyId, planName, endpoint, inputFileId } = batch;
    return { holder: { tenant, keyId, planName }, endpoint, inputFileId, lines: this.#store.claim(count) };
  }

  /** See {@link BatchStore.renew}. */
  renew(line: number, attempt: number): number | undefined {
    return this.#store.renew(line, attempt);
  }

  async finish(line: number, attempt: number, outcome: LineOutcome): Promise<void> {
    this.#store.finish(line, attempt, outcome);
    const batch = this.#store.batch();
    if (!batch) return;
    if (this.#store.has("running")) return;
    const ending = isEnding(batch.status) || (!this.#store.has("pending") && this.#store.move("all_done", Date.now()));
    if (ending) await this.#wakeNow();
  }

  /**
   * The holder of a ticket gives it back, and the next one is sent.
   * @param waited there was no room for the batch's lines: the next ticket comes the later, the more often that happens
   */
  async pass(turn: number, waited: boolean): Promise<void> {
    const batch = this.#holding(turn);
    if (!batch) return;
    const waits = waited ? batch.waits + 1 : 0;
    await this.#sendTicket(batch, waits, waited ? Math.min(MAX_WAIT_SECONDS, 2 ** Math.min(waits, 10)) : 0);
  }

  override async alarm(): Promise<void> {
    try {
      await this.#step(Date.now());
    } catch (error) {
      // An alarm that fails too often is given up; a batch must not be.
      console.error(JSON.stringify({ batch: this.#store.batch()?.id, error: String(error) }));
      await this.ctx.storage.setAlarm(Date.now() + RETRY_MS);
    }
  }

  async #step(now: number): Promise<void> {
    let batch = this.#store.batch();
    if (!batch) return;
    if (now >= batch.expiresAt && this.#store.move("time_up", now)) batch = this.#store.batch() ?? batch;
    const silenceMs = settingsOf(this.env).requestTimeoutMs + GRACE_MS;
    if (batch.status === "validating") return await this.#validate(batch);
    if (batch.status === "in_progress") {
      if (now - batch.seenAt >= silenceMs) await this.#sendTicket(batch, 0, 0);
      await this.ctx.storage.setAlarm(Math.min(batch.expiresAt, now + silenceMs));
      return;
    }
    if (!isEnding(batch.status)) return;
    const since = batch.times[batch.status] ?? now;
    if (this.#store.has("running") && now - since < silenceMs) {
      await this.ctx.storage.setAlarm(since + silenceMs);
      return;
    }
    await this.#writeFiles(batch, now);
  }

  async #validate(batch: BatchRecord): Promise<void> {
    this.#store.clearLines();
    const input = await new FileStore(this.env.FILES, batch.tenant).open(batch.inputFileId);
    const errors = input
      ? await validateInput(input.body, batch.endpoint, settingsOf(this.env).batchMaxLines, this.#store)
      : [{ code: "file_not_found", line: null, message: "The input file was deleted.", param: "input_file_id" }];
    const now = Date.now();
    if (errors.length > 0) {
      this.#store.clearLines();
      if (this.#store.move("invalid", now, { errors })) return;
    } else if (this.#store.move("validated", now)) {
      await this.#sendTicket(batch, 0, 0);
    }
    // Also when it was cancelled meanwhile.
    await this.#wakeNow();
  }

  /** Writes what there is, in the order of the input, and ends the batch. Done again it writes the same files. */
  async #writeFiles(batch: BatchRecord, now: number): Promise<void> {
    if (batch.status !== "finalizing") {
      const reason = batch.status === "expiring" ? "expired" : "cancelled";
      this.#store.closeLines((customId) => unrunResult(customId, reason));
    }
    const { completed, failed } = this.#store.counts();
    const outputFileId = batch.outputFileId ?? (completed > 0 ? newObjectId("file-", now) : null);
    const errorFileId = batch.errorFileId ?? (failed > 0 ? newObjectId("file-", now) : null);
    // Known before they are written, so that another try writes over them.
    this.#store.update({ outputFileId, errorFileId });
    if (outputFileId) await this.#writeFile(batch, outputFileId, "output", true);
    if (errorFileId) await this.#writeFile(batch, errorFileId, "error", false);
    this.#store.move("written", Date.now());
    this.#store.dropResults();
  }

  async #writeFile({ id, tenant }: BatchRecord, fileId: string, kind: string, ok: boolean): Promise<void> {
    const file = { filename: `${id}_${kind}.jsonl`, purpose: "batch_output" as const };
    const writer = new FileStore(this.env.FILES, tenant).writer(fileId, file, Date.now());
    const encoder = new TextEncoder();
    try {
      for (const result of this.#store.results(ok)) await writer.write(encoder.encode(`${result}\n`));
      await writer.close();
    } catch (error) {
      await writer.abort();
      throw error;
    }
  }

  #holding(turn: number): BatchRecord | undefined {
    const batch = this.#store.batch();
    return batch?.status === "in_progress" && batch.turn === turn ? batch : undefined;
  }

  async #sendTicket({ id, tenant, turn }: BatchRecord, waits: number, delaySeconds: number): Promise<void> {
    // Not seen until it is sent: should the queue be away, the next alarm sends another.
    this.#store.update({ turn: turn + 1, waits, seenAt: 0 });
    try {
      await this.env.BATCH_QUEUE.send({ tenant, batch: id, turn: turn + 1 }, { delaySeconds });
    } catch (error) {
      await this.ctx.storage.setAlarm(Date.now() + RETRY_MS);
      throw error;
    }
    this.#store.update({ seenAt: Date.now() });
  }

  #describe(batch: BatchRecord): BatchDescription {
    return describeBatch(batch, this.#store.counts());
  }

  async #wakeNow(): Promise<void> {
    await this.ctx.storage.setAlarm(Date.now());
  }
}

function fail(): never {
  throw new Error("the batch is not there");
}
