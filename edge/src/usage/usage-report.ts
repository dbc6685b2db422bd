import { z } from "zod";
import { ensureSchema } from "./database.ts";

/** Longest range of a report, days. */
export const MAX_REPORT_DAYS = 100;

const DAY_MS = 86_400_000;

const ReportDate = z.iso.date({ error: "must be a date such as 2026-11-24" });

/** Query of a usage report: the days from `from` to `to`, both included. Without them, this month until today (UTC). */
export const ReportQuery = z
  .object({
    from: ReportDate.optional(),
    to: ReportDate.optional(),
    format: z.enum(["json", "csv"], { error: 'must be "json" or "csv"' }).default("json"),
  })
  .transform(({ from, to, format }) => {
    const today = new Date().toISOString().slice(0, 10);
    const last = to ?? today;
    return { from: from ?? `${last.slice(0, 7)}-01`, to: last, format };
  })
  .superRefine(({ from, to }, ctx) => {
    const days = (Date.parse(to) - Date.parse(from)) / DAY_MS + 1;
    if (days < 1) ctx.addIssue({ code: "custom", path: ["from"], message: "must not be after 'to'" });
    if (days > MAX_REPORT_DAYS) {
      ctx.addIssue({ code: "custom", path: ["from"], message: `must be at most ${MAX_REPORT_DAYS} days before 'to'` });
    }
  });
export type ReportQuery = z.infer<typeof ReportQuery>;

const count = z.int().min(0);
const Amounts = {
  requests: count,
  prompt_tokens: count,
  completion_tokens: count,
  layer_tokens: count,
  micro_usd: count,
};

/** What was used on one day with one key at one depth. */
export const UsageLine = z.object({ day: z.iso.date(), key_id: z.string(), depth: count, ...Amounts });
export type UsageLine = z.infer<typeof UsageLine>;

const UsageTotal = z.object(Amounts);
export type UsageTotal = z.infer<typeof UsageTotal>;

/** A usage report as JSON. */
export const UsageReport = z.object({
  object: z.literal("usage"),
  tenant: z.string(),
  from: z.iso.date(),
  to: z.iso.date(),
  data: z.array(UsageLine),
  total: UsageTotal,
});
export type UsageReport = z.infer<typeof UsageReport>;

/** A tenant's usage by day, key and depth, in this order. */
export async function usageLines(db: D1Database, tenant: string, { from, to }: ReportQuery): Promise<UsageLine[]> {
  await ensureSchema(db);
  const { results } = await db
    .prepare(
      `SELECT day, key_id, depth, count(*) AS requests, sum(prompt_tokens) AS prompt_tokens,
         sum(completion_tokens) AS completion_tokens, sum(layer_tokens) AS layer_tokens, sum(micro_usd) AS micro_usd
       FROM usage WHERE tenant = ? AND day BETWEEN ? AND ? GROUP BY day, key_id, depth ORDER BY day, key_id, depth`,
    )
    .bind(tenant, from, to)
    .all();
  return results.map((row) => UsageLine.parse(row));
}

/** Sums up lines. */
export function totalOf(lines: readonly UsageLine[]): UsageTotal {
  const total: UsageTotal = { requests: 0, prompt_tokens: 0, completion_tokens: 0, layer_tokens: 0, micro_usd: 0 };
  for (const line of lines) {
    for (const amount of Object.keys(total) as (keyof UsageTotal)[]) total[amount] += line[amount];
  }
  return total;
}

/** Lines as RFC 4180 has it, with a header. Their texts are dates and hexadecimal ids: nothing is to be quoted. */
export function csvOf(lines: readonly UsageLine[]): string {
  const columns = Object.keys(UsageLine.shape) as (keyof UsageLine)[];
  return [columns.join(","), ...lines.map((line) => columns.map((column) => line[column]).join(",")), ""].join("\r\n");
}
