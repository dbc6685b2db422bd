import { DepthReason, ExitPolicyName } from "@fathom/shared";
import { z } from "zod";

/** How an answer ended: whole, or cut by the client, the clock or the service. */
export const UsageStatus = z.enum(["complete", "client", "timeout", "service"]);
export type UsageStatus = z.infer<typeof UsageStatus>;

const count = z.int().min(0);

/** What one answer used and cost: a row of the table `usage`. Times are milliseconds since the epoch. */
export const UsageRow = z.object({
  request_id: z.string(),
  tenant: z.string(),
  /** The ledger that charged it: the tenant's, or a shard of it. */
  ledger: z.string(),
  key_id: z.string(),
  plan: z.string(),
  model: z.string(),
  /** Base URL; empty when none answered. */
  service: z.string(),
  depth: count,
  exit: ExitPolicyName,
  reason: DepthReason,
  prompt_tokens: count,
  completion_tokens: count,
  layer_tokens: count,
  micro_usd: count,
  /** UTC day in which the request began; its budget was charged. */
  day: z.iso.date(),
  started_at: count,
  settled_at: count,
  status: UsageStatus,
});
export type UsageRow = z.infer<typeof UsageRow>;

/** Who asks for what: known when a request is admitted. */
export type Holder = Pick<UsageRow, "tenant" | "ledger" | "key_id" | "plan" | "model">;

/** What an answer used: known when it ends. */
export type Metered = Pick<
  UsageRow,
  "service" | "exit" | "prompt_tokens" | "completion_tokens" | "layer_tokens" | "status"
>;
