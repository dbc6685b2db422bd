import { type ModelName, parseModelName } from "../policy/virtual-model.ts";
import { servicesFor } from "./choose-service.ts";
import type { Candidate } from "./pool-view.ts";

/**
 * What a model's name stands for in the pool, and the services that run it.
 * @throws ApiError `model_not_found` that says which models there are.
 */
export function namedModel(
  candidates: readonly Candidate[],
  name: string,
): ModelName & { candidates: [Candidate, ...Candidate[]] } {
  const ids = candidates.map(({ service }) => service.model.id);
  const parsed = parseModelName(name, ids) ?? { base: name, choice: undefined };
  return { ...parsed, candidates: servicesFor(candidates, parsed.base) };
}
