import { ApiError } from "@fathom/shared";
import { MODEL_ALIAS } from "../policy/virtual-model.ts";
import type { Candidate } from "./pool-view.ts";

/**
 * The services that run a model, in the order in which to try them. Under the alias the first service decides which
 * checkpoint is meant. Services that are left alone count only when there are no others: they still say what the model is.
 * The others follow only if they serve the same exits (the depth is chosen for all of them) in the same region.
 * @throws ApiError `model_not_found` that says which models there are.
 */
export function servicesFor(candidates: readonly Candidate[], name: string): [Candidate, ...Candidate[]] {
  const id = name === MODEL_ALIAS ? candidates[0]?.service.model.id : name;
  const running = candidates.filter(({ service }) => service.model.id === id);
  const well = running.filter(({ rests }) => !rests);
  const [first, ...others] = well.length > 0 ? well : running;
  if (first) return [first, ...others.filter((other) => isLike(other, first))];
  const known = [...new Set(candidates.map(({ service }) => `'${service.model.id}'`))].join(", ");
  throw new ApiError("model_not_found", `'model': there is no model '${name}'; there is ${known}`, { param: "model" });
}

function isLike(other: Candidate, first: Candidate): boolean {
  return exitsOf(other) === exitsOf(first) && other.region === first.region;
}

function exitsOf({ service }: Candidate): string {
  return service.model.fathom.exits.map(({ depth }) => depth).join();
}
