import { steadyLoad } from "../policy/hysteresis.ts";
import type { Candidate } from "./pool-view.ts";

/** By model: the load that this isolate last reckoned with. */
const held = new Map<string, number>();

/**
 * Load of the services that may run a request (0 idle, 1 full, more when requests wait): their mean, which wavers less than the load of the one that is
 * least busy, and with a hysteresis, so that depths do not flap.
 */
export function poolLoad(candidates: readonly [Candidate, ...Candidate[]]): number {
  const [{ service }] = candidates;
  const mean = candidates.reduce((sum, { load }) => sum + load, 0) / candidates.length;
  const key = `${service.model.id} ${candidates.map(({ service: { url } }) => url).sort()}`;
  const steady = steadyLoad(held.get(key) ?? 0, mean);
  // A pool that keeps changing its members must not fill the memory.
  if (held.size > 1000) held.clear();
  held.set(key, steady);
  return steady;
}
