/** Where a batch is. `expiring` is ours: OpenAI's clients see `finalizing` then. */
export type BatchStatus =
  | "validating"
  | "failed"
  | "in_progress"
  | "finalizing"
  | "completed"
  | "expiring"
  | "expired"
  | "cancelling"
  | "cancelled";

/** What moves a batch on. */
export type BatchEvent = "validated" | "invalid" | "all_done" | "time_up" | "cancel" | "written";

const NEXT: Record<BatchStatus, Partial<Record<BatchEvent, BatchStatus>>> = {
  validating: { validated: "in_progress", invalid: "failed", cancel: "cancelling", time_up: "expiring" },
  in_progress: { all_done: "finalizing", cancel: "cancelling", time_up: "expiring" },
  finalizing: { written: "completed" },
  expiring: { written: "expired" },
  cancelling: { written: "cancelled", cancel: "cancelling" },
  failed: {},
  completed: {},
  expired: {},
  cancelled: {},
};

/** The status after an event; undefined when the event changes nothing here: a batch that has ended stays as it ended. */
export function nextStatus(status: BatchStatus, event: BatchEvent): BatchStatus | undefined {
  return NEXT[status][event];
}

/** Whether the batch only waits for its last answers, and for its files to be written. */
export function isEnding(status: BatchStatus): boolean {
  return status === "finalizing" || status === "expiring" || status === "cancelling";
}
