import type { ModelDescription } from "@fathom/shared";
import { z } from "zod";

/** A service's own count of its requests. */
export const ServiceLoad = z.object({
  running: z.int().min(0),
  waiting: z.int().min(0),
  /** Requests that may run at the same time, where the service says so. */
  capacity: z.int().min(1).optional(),
  /** Bytes of K/V that requests may still claim, and all that there may be, where the service says so. */
  kv_free_bytes: z.int().min(0).optional(),
  kv_total_bytes: z.int().min(1).optional(),
  /** How long a running request has waited for a token of late, milliseconds. */
  ms_per_token: z.number().min(0).optional(),
});
export type ServiceLoad = z.infer<typeof ServiceLoad>;

/** What is known of one GPU service. */
export interface ServiceState {
  /** Base URL, without a slash at the end. */
  url: string;
  /** Where it says that it is; undefined counts as the first region. */
  region: string | undefined;
  /** Undefined when it did not answer, or not as a service of ours. */
  load: ServiceLoad | undefined;
  /** What it serves; undefined until it has said so. */
  model: ModelDescription | undefined;
}

/** A service that can take requests. */
export interface ReadyService {
  url: string;
  region: string | undefined;
  load: ServiceLoad;
  model: ServedModel;
}

/** A model whose exits are known. */
export type ServedModel = ModelDescription & { fathom: NonNullable<ModelDescription["fathom"]> };

/** The service if it can take requests. */
export function asReady({ url, region, load, model }: ServiceState): ReadyService | undefined {
  return load && model?.fathom ? { url, region, load, model: { ...model, fathom: model.fathom } } : undefined;
}
