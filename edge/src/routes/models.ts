import { ApiError, type VirtualModel } from "@fathom/shared";
import type { Context } from "hono";
import type { AppEnv } from "../app-env.ts";
import { namedModel } from "../fleet/named-model.ts";
import { readyServices } from "../fleet/pool-view.ts";
import type { ServedModel } from "../fleet/service-state.ts";
import { dialOf, MODEL_ALIAS, virtualNames } from "../policy/virtual-model.ts";

/**
 * `GET /v1/models`: what the pool's services run, with their exits, and the virtual models over `fathom` that the caller's
 * plan may use. The same endings after a checkpoint's own id are known, but not listed.
 */
export async function listModels(c: Context<AppEnv>): Promise<Response> {
  const candidates = await readyServices(c.env);
  const models = new Map<string, ServedModel>();
  for (const { service } of candidates) models.set(service.model.id, service.model);
  const [{ service }] = namedModel(candidates, MODEL_ALIAS).candidates;
  const virtual = virtualNames(MODEL_ALIAS, exitsOf(service.model), c.var.customer.plan)
    .filter(({ id }) => !models.has(id))
    .map(({ id, dial }) => describe(id, service.model, dial));
  return c.json({ object: "list", data: [...models.values(), ...virtual] });
}

/** `GET /v1/models/:id`. @throws ApiError `model_not_found`, or `invalid_depth` for a name that asks for no exit. */
export async function showModel(c: Context<AppEnv>): Promise<Response> {
  const id = c.req.param("id");
  if (id === undefined) throw new ApiError("not_found", "No model is named.");
  const name = namedModel(await readyServices(c.env), id);
  const { model } = name.candidates[0].service;
  if (id === model.id) return c.json(model);
  return c.json(describe(id, model, dialOf(name, exitsOf(model), c.var.customer.plan)));
}

function describe(id: string, model: ServedModel, dial: Omit<VirtualModel, "model">): ServedModel {
  return { ...model, id, fathom: { ...model.fathom, virtual: { model: model.id, ...dial } } };
}

function exitsOf({ fathom }: ServedModel): number[] {
  return fathom.exits.map(({ depth }) => depth);
}
