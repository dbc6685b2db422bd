import { ApiError, fromZodError } from "@fathom/shared";
import type { Context } from "hono";
import { z } from "zod";
import type { AppEnv } from "../app-env.ts";
import { type FileDescription, FilePurpose, FileStore } from "../files/file-store.ts";
import { receiveFile } from "../files/receive-file.ts";
import { listPage, listQuery } from "../http/list-query.ts";
import { settingsOf } from "../settings.ts";

/** `POST /v1/files`: stores the input of a batch. */
export async function createFile(c: Context<AppEnv>): Promise<Response> {
  return c.json(await receiveFile(c.req.raw, storeOf(c), settingsOf(c.env).batchMaxFileBytes));
}

/** `GET /v1/files`: the tenant's files, newest first. */
export async function listFiles(c: Context<AppEnv>): Promise<Response> {
  const { limit, after } = listQuery(c, 1000, 10_000);
  const query = z.object({ purpose: FilePurpose.optional() }).safeParse({ purpose: c.req.query("purpose") });
  if (!query.success) throw fromZodError(query.error);
  const { files, more } = await storeOf(c).list(limit, after, query.data.purpose);
  return c.json(listPage(files, more));
}

/** `GET /v1/files/:id`. @throws ApiError `not_found`, also for another tenant's file. */
export async function showFile(c: Context<AppEnv>): Promise<Response> {
  return c.json(await theFile(c));
}

/** `GET /v1/files/:id/content`: the file as it is. */
export async function showFileContent(c: Context<AppEnv>): Promise<Response> {
  const { id } = await theFile(c);
  const object = await storeOf(c).open(id);
  if (!object) throw noFile(id);
  // Never shown as a page: it holds what customers and models wrote.
  return c.body(object.body, 200, {
    "content-type": "application/jsonl",
    "content-disposition": "attachment",
    "content-length": String(object.size),
  });
}

/** `DELETE /v1/files/:id`. */
export async function deleteFile(c: Context<AppEnv>): Promise<Response> {
  const { id } = await theFile(c);
  await storeOf(c).delete(id);
  return c.json({ id, object: "file", deleted: true });
}

async function theFile(c: Context<AppEnv>): Promise<FileDescription> {
  const id = c.req.param("id") ?? "";
  const file = await storeOf(c).describe(id);
  if (!file) throw noFile(id);
  return file;
}

function noFile(id: string): ApiError {
  return new ApiError("not_found", `There is no file '${id.slice(0, 64)}'.`, { param: "id" });
}

function storeOf(c: Context<AppEnv>): FileStore {
  return new FileStore(c.env.FILES, c.var.customer.tenant);
}
