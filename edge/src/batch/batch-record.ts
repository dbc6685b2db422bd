import { z } from "zod";
import type { BatchError } from "./batch-line.ts";
import type { BatchStatus } from "./batch-status.ts";

export const BatchEndpoint = z.enum(["/v1/chat/completions", "/v1/completions"], {
  error: "must be /v1/chat/completions or /v1/completions",
});
export type BatchEndpoint = z.infer<typeof BatchEndpoint>;

/** Body of `POST /v1/batches`. */
export const BatchRequest = z.object({
  input_file_id: z.string().max(256),
  endpoint: BatchEndpoint,
  completion_window: z.literal("24h", { error: 'must be "24h"' }),
  metadata: z
    .record(z.string().max(64), z.string().max(512))
    .refine((map) => Object.keys(map).length <= 16, { error: "must have at most 16 entries" })
    .nullish(),
});

/** Who pays for a batch. */
export interface BatchHolder {
  tenant: string;
  keyId: string;
  planName: string;
}

/** What makes a batch. */
export interface BatchSpec extends BatchHolder {
  id: string;
  endpoint: BatchEndpoint;
  inputFileId: string;
  metadata: Record<string, string> | null;
  /** Milliseconds since the epoch. */
  createdAt: number;
  expiresAt: number;
}

/** When a batch came to a status, milliseconds since the epoch. */
export type BatchTimes = Partial<Record<BatchStatus, number>>;

/** All that is kept of a batch but its lines. */
export interface BatchRecord extends BatchSpec {
  status: BatchStatus;
  times: BatchTimes;
  errors: BatchError[];
  outputFileId: string | null;
  errorFileId: string | null;
  /** The ticket that is out: others are void. */
  turn: number;
  /** How often in a row a ticket came back because there was no room. */
  waits: number;
  /** When a ticket last came by, milliseconds since the epoch. */
  seenAt: number;
}

export interface RequestCounts {
  total: number;
  completed: number;
  failed: number;
}

/** The batch as OpenAI describes it. */
export function describeBatch(batch: BatchRecord, counts: RequestCounts) {
  const { status, times, errors } = batch;
  const seconds = (ms: number | undefined): number | null => (ms === undefined ? null : Math.floor(ms / 1000));
  return {
    id: batch.id,
    object: "batch",
    endpoint: batch.endpoint,
    errors: errors.length === 0 ? null : { object: "list", data: errors },
    input_file_id: batch.inputFileId,
    completion_window: "24h",
    status: status === "expiring" ? "finalizing" : status,
    output_file_id: batch.outputFileId,
    error_file_id: batch.errorFileId,
    created_at: seconds(batch.createdAt),
    in_progress_at: seconds(times.in_progress),
    expires_at: seconds(batch.expiresAt),
    finalizing_at: seconds(times.finalizing ?? times.expiring),
    completed_at: seconds(times.completed),
    failed_at: seconds(times.failed),
    expired_at: seconds(times.expired),
    cancelling_at: seconds(times.cancelling),
    cancelled_at: seconds(times.cancelled),
    request_counts: { ...counts },
    metadata: batch.metadata,
  };
}
export type BatchDescription = ReturnType<typeof describeBatch>;
