import type { BatchDescription } from "../batch/batch-record.ts";
import { eventually, post, send, type TestTenant } from "./edge.ts";

/** A line that asks for a chat, or for whatever `more` says. */
export function chatLine(customId: string, more: Record<string, unknown> = {}, body: Record<string, unknown> = {}) {
  const messages = [{ role: "user", content: "one two three" }];
  return {
    custom_id: customId,
    method: "POST",
    url: "/v1/chat/completions",
    body: { model: "fathom", messages, ...body },
    ...more,
  };
}

export const jsonl = (lines: readonly unknown[]): string => lines.map((line) => JSON.stringify(line)).join("\n");

export const withKey = ({ key }: TestTenant, init: RequestInit = {}): RequestInit => ({
  ...init,
  headers: { authorization: `Bearer ${key}` },
});

/** `POST /v1/files`. */
export function upload(tenant: TestTenant, text: string, purpose = "batch"): Promise<Response> {
  const form = new FormData();
  form.set("purpose", purpose);
  form.set("file", new File([text], "input.jsonl"));
  return send("/v1/files", withKey(tenant, { method: "POST", body: form }));
}

export async function uploaded(tenant: TestTenant, text: string): Promise<string> {
  return (await (await upload(tenant, text)).json<{ id: string }>()).id;
}

/** `POST /v1/batches`. */
export function createBatch(tenant: TestTenant, fileId: string, more: Record<string, unknown> = {}): Promise<Response> {
  const body = { input_file_id: fileId, endpoint: "/v1/chat/completions", completion_window: "24h", ...more };
  return send("/v1/batches", post(tenant.key, body));
}

export async function showBatch(tenant: TestTenant, id: string): Promise<BatchDescription> {
  return await (await send(`/v1/batches/${id}`, withKey(tenant))).json();
}

/** Waits until a batch has ended. */
export function ended(tenant: TestTenant, id: string): Promise<BatchDescription> {
  return eventually(
    () => showBatch(tenant, id),
    ({ status }) => ["completed", "failed", "expired", "cancelled"].includes(status),
  );
}

/** The lines of an output or error file. */
export async function linesOf(tenant: TestTenant, fileId: string | null): Promise<ResultLine[]> {
  if (fileId === null) return [];
  const text = await (await send(`/v1/files/${fileId}/content`, withKey(tenant))).text();
  return text
    .trimEnd()
    .split("\n")
    .map((line) => JSON.parse(line) as ResultLine);
}

export interface ResultLine {
  id: string;
  custom_id: string;
  response: { status_code: number; request_id: string; body: Record<string, unknown> } | null;
  error: { code: string; message: string } | null;
}
