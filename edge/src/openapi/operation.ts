import type { ErrorCode } from "@fathom/shared";
import type { SchemaName } from "./schemas.ts";

export type Method = "get" | "post" | "patch" | "delete";

/** A parameter in the query. */
export interface QueryParameter {
  name: string;
  description: string;
  type: "string" | "integer";
  default?: number;
}

/** A body that is not JSON, by its media type. */
export interface OtherBody {
  mediaType: string;
  schema?: SchemaName;
  description: string;
}

/** One endpoint as the document describes it. */
export interface Operation {
  method: Method;
  /** As it is registered: `/v1/models/:id`. */
  path: string;
  id: string;
  summary: string;
  description?: string;
  tag: "Text" | "Models" | "Files" | "Batches" | "Policy" | "Usage" | "Tenants" | "Keys" | "Audit" | "Service";
  /** Who may call it. */
  auth: "apiKey" | "admin" | "none";
  query?: readonly QueryParameter[];
  /** JSON, or the form of an upload. */
  body?: { schema: SchemaName; mediaType?: string; optional?: boolean };
  answer: { status: 200 | 201; description: string; schema?: SchemaName; others?: readonly OtherBody[] };
  /** Beside those that follow from `auth` and `body`. */
  errors?: readonly ErrorCode[];
}

/** The days of a usage report, and its form. */
export const REPORT_QUERY: readonly QueryParameter[] = [
  { name: "from", type: "string", description: "First day, such as 2026-11-01; without it the month's first." },
  { name: "to", type: "string", description: "Last day, at most 100 days later; without it today (UTC)." },
  { name: "format", type: "string", description: "`json` or `csv`." },
];

/** A usage report that was asked for as CSV. */
export const REPORT_AS_CSV: OtherBody = { mediaType: "text/csv", description: "One line per day, key and depth." };

/** OpenAI's cursor. */
export function pageQuery(limit: number, most: number): readonly QueryParameter[] {
  return [
    { name: "limit", type: "integer", description: `Most entries of the page, 1 to ${most}.`, default: limit },
    { name: "after", type: "string", description: "Id of the last entry of the page before." },
  ];
}
