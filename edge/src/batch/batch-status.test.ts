import fc from "fast-check";
import { expect, test } from "vitest";
import { type BatchEvent, type BatchStatus, isEnding, nextStatus } from "./batch-status.ts";

const anyEvent = fc.constantFrom<BatchEvent>("validated", "invalid", "all_done", "time_up", "cancel", "written");
const LAST: readonly BatchStatus[] = ["failed", "completed", "expired", "cancelled"];

test.each<[BatchStatus, BatchEvent, BatchStatus | undefined]>([
  ["validating", "validated", "in_progress"],
  ["validating", "invalid", "failed"],
  ["in_progress", "all_done", "finalizing"],
  ["finalizing", "written", "completed"],
  ["finalizing", "cancel", undefined],
  ["in_progress", "time_up", "expiring"],
  ["expiring", "written", "expired"],
  ["in_progress", "cancel", "cancelling"],
  ["cancelling", "all_done", undefined],
  ["cancelling", "written", "cancelled"],
])("%s on %s: %s", (from, event, to) => {
  expect(nextStatus(from, event)).toBe(to);
});

test("whatever happens, a batch that has ended stays as it ended, and ends only with its files written or unread", () => {
  fc.assert(
    fc.property(fc.array(anyEvent, { maxLength: 30 }), (events) => {
      let status: BatchStatus = "validating";
      for (const event of events) {
        const next = nextStatus(status, event);
        if (LAST.includes(status)) expect(next).toBeUndefined();
        if (next && LAST.includes(next)) expect(isEnding(status) || event === "invalid").toBe(true);
        status = next ?? status;
      }
    }),
  );
});
