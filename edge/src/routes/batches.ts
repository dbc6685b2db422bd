import { ApiError } from "@fathom/shared";
import type { Context } from "hono";
import type { AppEnv } from "../app-env.ts";
import type { Batch } from "../batch/batch.ts";
import { BatchIndex } from "../batch/batch-index.ts";
import { batchOf } from "../batch/batch-of.ts";
import { BatchRequest } from "../batch/batch-record.ts";
import { FileStore } from "../files/file-store.ts";
import { newObjectId } from "../files/object-id.ts";
import { listPage, listQuery } from "../http/list-query.ts";
import { readJson } from "../http/read-json.ts";

/** `completion_window` has this one value. */
const WINDOW_MS = 24 * 3_600_000;

/** `POST /v1/batches`: begins a batch; its input is validated afterwards. */
export async function createBatch(c: Context<AppEnv>): Promise<Response> {
  const { input_file_id: inputFileId, endpoint, metadata } = await readJson(c, BatchRequest);
  const { tenant, keyId, planName } = c.var.customer;
  const file = await new FileStore(c.env.FILES, tenant).describe(inputFileId);
  const param = "input_file_id";
  if (!file) throw new ApiError("not_found", `'${param}': there is no file '${inputFileId.slice(0, 64)}'`, { param });
  if (file.purpose !== "batch") {
    throw new ApiError("invalid_request", `'${param}': the file's purpose is '${file.purpose}', not 'batch'`, {
      param,
    });
  }
  const createdAt = Date.now();
  const id = newObjectId("batch_", createdAt);
  await new BatchIndex(c.env.FILES, tenant).add(id);
  const spec = { id, tenant, keyId, planName, endpoint, inputFileId, metadata: metadata ?? null };
  return c.json(await batchOf(c.env, tenant, id).create({ ...spec, createdAt, expiresAt: createdAt + WINDOW_MS }));
}

/** `GET /v1/batches`: the tenant's batches, newest first. */
export async function listBatches(c: Context<AppEnv>): Promise<Response> {
  const { limit, after } = listQuery(c, 20, 100);
  const { tenant } = c.var.customer;
  const { ids, more } = await new BatchIndex(c.env.FILES, tenant).list(limit, after);
  const batches = await Promise.all(ids.map((id) => batchOf(c.env, tenant, id).describe()));
  return c.json(
    listPage(
      batches.filter((batch) => batch !== undefined),
      more,
    ),
  );
}

/** `GET /v1/batches/:id`. @throws ApiError `not_found`, also for another tenant's batch. */
export async function showBatch(c: Context<AppEnv>): Promise<Response> {
  const batch = await (await theBatch(c)).describe();
  if (!batch) throw noBatch(c);
  return c.json(batch);
}

/** `POST /v1/batches/:id/cancel`: stops what has not started. */
export async function cancelBatch(c: Context<AppEnv>): Promise<Response> {
  const result = await (await theBatch(c)).cancel();
  if (!result) throw noBatch(c);
  if (!result.cancelled) {
    throw new ApiError("invalid_request", `The batch cannot be cancelled any more: it is ${result.batch.status}.`);
  }
  return c.json(result.batch);
}

async function theBatch(c: Context<AppEnv>): Promise<DurableObjectStub<Batch>> {
  const id = c.req.param("id") ?? "";
  const { tenant } = c.var.customer;
  if (!(await new BatchIndex(c.env.FILES, tenant).has(id))) throw noBatch(c);
  return batchOf(c.env, tenant, id);
}

function noBatch(c: Context<AppEnv>): ApiError {
  return new ApiError("not_found", `There is no batch '${c.req.param("id")?.slice(0, 64)}'.`, { param: "id" });
}
