import type { ModelDescription, ServiceLoad } from "@fathom/shared";

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
