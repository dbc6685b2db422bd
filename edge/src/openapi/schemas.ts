import {
  ChatCompletion,
  ChatCompletionChunk,
  ChatCompletionRequest,
  ChatMessage,
  Completion,
  CompletionRequest,
  DepthProfile,
  DepthReason,
  ErrorBody,
  ExitSet,
  FathomRequest,
  FathomResponse,
  ModelDescription,
  ModelList,
  Usage,
} from "@fathom/shared";
import { z } from "zod";
import { type BatchDescription, BatchRequest } from "../batch/batch-record.ts";
import { AuditDescription, KeyDescription, TenantDescription } from "../directory/records.ts";
import { type FileDescription, FilePurpose } from "../files/file-store.ts";
import type { Explanation } from "../policy/explain.ts";
import {
  AuditList,
  CreatedKey,
  KeyChangeRequest,
  KeyList,
  KeyRequest,
  NewKeyDescription,
  PlanList,
  page,
  RotatedKey,
  RotateRequest,
  TenantChangeRequest,
  TenantKeyRequest,
  TenantList,
  TenantRequest,
  TenantUsage,
} from "../routes/admin/schemas.ts";
import { PlanSituation, Situation } from "../routes/explain-policy.ts";
import { UsageReport } from "../usage/usage-report.ts";

const count = z.int().min(0);
const time = count.nullable();

const File = z.object({
  id: z.string(),
  object: z.literal("file"),
  bytes: count,
  created_at: count,
  filename: z.string(),
  purpose: FilePurpose,
  status: z.literal("processed"),
}) satisfies z.ZodType<FileDescription>;

const FileUpload = z.object({
  file: z.string().meta({ description: "JSONL: one request per line.", format: "binary" }),
  purpose: z.literal("batch"),
});

const BatchErrors = z.object({
  object: z.literal("list"),
  data: z.array(
    z.object({ code: z.string(), line: z.int().nullable(), message: z.string(), param: z.string().nullable() }),
  ),
});

const Batch = z.object({
  id: z.string(),
  object: z.literal("batch"),
  endpoint: z.enum(["/v1/chat/completions", "/v1/completions"]),
  errors: BatchErrors.nullable(),
  input_file_id: z.string(),
  completion_window: z.literal("24h"),
  status: z.enum([
    "validating",
    "failed",
    "in_progress",
    "finalizing",
    "completed",
    "expired",
    "cancelling",
    "cancelled",
  ]),
  output_file_id: z.string().nullable(),
  error_file_id: z.string().nullable(),
  created_at: time,
  in_progress_at: time,
  expires_at: time,
  finalizing_at: time,
  completed_at: time,
  failed_at: time,
  expired_at: time,
  cancelling_at: time,
  cancelled_at: time,
  request_counts: z.object({ total: count, completed: count, failed: count }),
  metadata: z.record(z.string(), z.string()).nullable(),
}) satisfies z.ZodType<BatchDescription>;

const PolicyExplanation = z.object({
  plan: z.object({ name: z.string(), min: z.int(), default: z.int(), max: z.int(), priority: z.int() }),
  load: z.number().meta({ description: "Requests in flight over the capacity: 1 is full." }),
  shedding: z.number().meta({ description: "How much of the way to the shallowest exit the load takes." }),
  remaining_micro_usd: count,
  exits: z.array(
    z.object({
      depth: z.int(),
      verdict: z.enum(["offered", "plan", "bounds", "no_better", "above_default", "load"]),
      why: z.string(),
    }),
  ),
  offers: z
    .array(
      z.object({
        depth: z.int(),
        reason: DepthReason,
        cost_micro_usd: count,
        keep_micro_usd: count,
        covered: z.boolean(),
      }),
    )
    .meta({ description: "Deepest first; the first one that is covered is chosen." }),
  chosen: z.object({ depth: z.int(), reason: DepthReason }).nullable(),
}) satisfies z.ZodType<Explanation>;

/** Every schema that has a name in the document: what is used in several places, and every body. */
export const SCHEMAS = {
  ApiKey: KeyDescription,
  ApiKeyList: KeyList,
  AuditEntry: AuditDescription,
  AuditList,
  Batch,
  BatchList: page(Batch),
  BatchRequest,
  ChatCompletion,
  ChatCompletionChunk,
  ChatCompletionRequest,
  ChatMessage,
  Completion,
  CompletionRequest,
  CreatedKey,
  DepthProfile,
  Error: ErrorBody,
  ExitSet,
  FathomRequest,
  FathomResponse,
  File,
  FileDeleted: z.object({ id: z.string(), object: z.literal("file"), deleted: z.literal(true) }),
  FileList: page(File),
  FileUpload,
  Health: z.object({ status: z.literal("ok") }),
  KeyChange: KeyChangeRequest,
  KeyRequest,
  Model: ModelDescription,
  ModelList,
  NewApiKey: NewKeyDescription,
  PlanList,
  PolicyExplanation,
  PolicySituation: Situation,
  PlanPolicySituation: PlanSituation,
  RotatedApiKey: RotatedKey,
  RotateRequest,
  Tenant: TenantDescription,
  TenantChange: TenantChangeRequest,
  TenantKeyRequest,
  TenantList,
  TenantRequest,
  TenantUsage,
  Usage,
  UsageReport,
} satisfies Record<string, z.ZodType>;

export type SchemaName = keyof typeof SCHEMAS;
