import { ApiError } from "@fathom/shared";
import type { Context } from "hono";
import type { AppEnv } from "../app-env.ts";
import { servicesFor } from "../fleet/choose-service.ts";
import { readyServices } from "../fleet/pool-view.ts";
import type { ServedModel } from "../fleet/service-state.ts";

/** `GET /v1/models`: what the pool's services run, with their exits. */
export async function listModels(c: Context<AppEnv>): Promise<Response> {
  const models = new Map<string, ServedModel>();
  for (const { service } of await readyServices(c.env)) models.set(service.model.id, service.model);
  return c.json({ object: "list", data: [...models.values()] });
}

/** `GET /v1/models/:id`. @throws ApiError `model_not_found`. */
export async function showModel(c: Context<AppEnv>): Promise<Response> {
  const id = c.req.param("id");
  if (id === undefined) throw new ApiError("not_found", "No model is named.");
  const [{ service }] = servicesFor(await readyServices(c.env), id);
  return c.json(service.model);
}
