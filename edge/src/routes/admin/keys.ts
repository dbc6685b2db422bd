import type { Context } from "hono";
import type { z } from "zod";
import type { AppEnv } from "../../app-env.ts";
import { type NewKey, newKey } from "../../auth/key-store.ts";
import { directoryOf } from "../../directory/directory.ts";
import type { KeyChange, KeySpec } from "../../directory/directory-store.ts";
import { unwrap } from "../../directory/outcome.ts";
import { listPage, listQuery } from "../../http/list-query.ts";
import { readJson } from "../../http/read-json.ts";
import type { Plans } from "../../policy/plan.ts";
import { knownPlan } from "../known-plan.ts";
import { originOf } from "./origin.ts";
import {
  type CreatedKey,
  KeyChangeRequest,
  KeyRequest,
  type NewKeyDescription,
  type RotatedKey,
  RotateRequest,
  TenantKeyRequest,
} from "./schemas.ts";
import { tenantIn } from "./tenants.ts";

/** `POST /admin/keys`: makes a key, and its tenant when that is new. The answer is the only place where the key is shown. */
export function createKey(plans: Plans) {
  return async (c: Context<AppEnv>): Promise<Response> => {
    const { tenant, plan, ...fields } = await readJson(c, KeyRequest);
    knownPlan(plans, plan);
    c.var.log.add({ tenant, plan });
    const made = await newKey();
    const { id } = unwrap(await directoryOf(c.env).createKey(tenant, plan, specOf(made, fields), originOf(c)));
    const answer: z.infer<typeof CreatedKey> = { id, key: made.key, tenant, plan };
    return c.json(answer, 201);
  };
}

/** `POST /admin/tenants/:tenant/keys`: makes a key for a tenant that is there. */
export async function createTenantKey(c: Context<AppEnv>): Promise<Response> {
  const fields = await readJson(c, TenantKeyRequest);
  const made = await newKey();
  const spec = specOf(made, fields);
  const description = unwrap(await directoryOf(c.env).createKey(tenantIn(c), undefined, spec, originOf(c)));
  const answer: z.infer<typeof NewKeyDescription> = { ...description, key: made.key };
  return c.json(answer, 201);
}

/** `GET /admin/tenants/:tenant/keys`: newest first. */
export async function listKeys(c: Context<AppEnv>): Promise<Response> {
  const page = listQuery(c, 20, 100);
  const { keys, more } = unwrap(await directoryOf(c.env).listKeys(tenantIn(c), page));
  return c.json(listPage(keys, more));
}

/** `GET /admin/keys/:id`. */
export async function showKey(c: Context<AppEnv>): Promise<Response> {
  return c.json(unwrap(await directoryOf(c.env).key(keyIn(c))));
}

/** `PATCH /admin/keys/:id`: label, scopes and expiry. */
export async function changeKey(c: Context<AppEnv>): Promise<Response> {
  const { label, scopes, expires_at: expiresAt } = await readJson(c, KeyChangeRequest);
  const change: KeyChange = {
    ...(label !== undefined && { label }),
    ...(scopes !== undefined && { scopes }),
    ...(expiresAt !== undefined && { expiresAt: inMilliseconds(expiresAt) }),
  };
  return c.json(unwrap(await directoryOf(c.env).changeKey(keyIn(c), change, originOf(c))));
}

/** `POST /admin/keys/:id/revoke`: counts from the next request on, and for ever. */
export async function revokeKey(c: Context<AppEnv>): Promise<Response> {
  return c.json(unwrap(await directoryOf(c.env).revokeKey(keyIn(c), originOf(c))));
}

/** `POST /admin/keys/:id/rotate`: a new key in the place of an old one. */
export async function rotateKey(c: Context<AppEnv>): Promise<Response> {
  // Without a body it is as with an empty one.
  const bare = c.req.header("content-type") === undefined;
  const { overlap_seconds } = bare ? RotateRequest.parse({}) : await readJson(c, RotateRequest);
  const { key, ...kept } = await newKey();
  const rotated = await directoryOf(c.env).rotateKey(keyIn(c), kept, overlap_seconds * 1000, originOf(c));
  const { created, replaced } = unwrap(rotated);
  const answer: z.infer<typeof RotatedKey> = { ...created, key, replaces: replaced };
  return c.json(answer, 201);
}

function specOf({ key: _, ...kept }: NewKey, { label, scopes, expires_at }: TenantKeyRequest): KeySpec {
  return { ...kept, label, scopes, expiresAt: inMilliseconds(expires_at) };
}

function inMilliseconds(seconds: number | null): number | null {
  return seconds === null ? null : seconds * 1000;
}

function keyIn(c: Context<AppEnv>): string {
  return c.req.param("id") ?? "";
}
