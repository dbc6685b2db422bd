import { env } from "cloudflare:workers";
import { send } from "./edge.ts";

/** A request under /admin with the administrator's secret. */
export function admin(method: string, path: string, body?: unknown): Promise<Response> {
  const headers: Record<string, string> = { authorization: `Bearer ${env.ADMIN_SECRET}` };
  if (body !== undefined) headers["content-type"] = "application/json";
  return send(`/admin${path}`, { method, headers, ...(body !== undefined && { body: JSON.stringify(body) }) });
}

/** The JSON of an answer that must have the given status. */
export async function answered<T>(status: number, response: Promise<Response>): Promise<T> {
  const got = await response;
  if (got.status !== status) throw new Error(`status ${got.status}: ${await got.text()}`);
  return await got.json();
}
