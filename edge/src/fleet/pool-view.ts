import { ApiError } from "@fathom/shared";
import { settingsOf } from "../settings.ts";
import { rests } from "./breakers.ts";
import { type FleetSnapshot, LOAD_MAX_AGE_MS } from "./fleet.ts";
import { asReady, type ReadyService, type ServiceState } from "./service-state.ts";

/** A service with the load that the policy is to reckon with. */
export interface Candidate {
  service: ReadyService;
  /** 0 idle, 1 full, 2 when as many wait as run. */
  load: number;
  /** The same as it was last heard, also when that is long ago. */
  lastLoad: number;
  /** Place of its region in the order of regions: 0 is used first. */
  region: number;
  /** Left alone, because its last requests failed. */
  rests: boolean;
}

interface Held {
  key: string;
  takenAt: number;
  services: ServiceState[];
}

/** What this isolate last heard. Only values are kept: a promise belongs to the request that made it. */
let held: Held | undefined;

/**
 * The services that can take requests, those of the first region first and there the least loaded, from a view that is at
 * most a second old. When the fleet cannot be asked, the older view is used and everything counts as full.
 * @throws ApiError `upstream_unavailable` when no service is known to be well.
 */
export async function readyServices(env: Env): Promise<Candidate[]> {
  const { upstreams, pool, regionOrder, serviceCapacity } = settingsOf(env);
  const { services, stale } = await look(env, upstreams, pool);
  const candidates = services.map(asReady).filter((service) => service !== undefined);
  if (candidates.length === 0) {
    throw new ApiError("upstream_unavailable", "No GPU service is available.", { retryAfter: 2 });
  }
  return candidates
    .map((service) => ({
      service,
      load: stale ? 1 : loadOf(service, serviceCapacity),
      lastLoad: loadOf(service, serviceCapacity),
      region: regionOf(service, regionOrder),
      rests: rests(service.url),
    }))
    .sort((a, b) => a.region - b.region || requestsAt(a.service) - requestsAt(b.service));
}

/**
 * Counts a request that is about to be sent, so that the next ones see it before the next probe does.
 * @returns to be called when the request is over
 */
export function countStarted({ load }: ReadyService): () => void {
  load.waiting++;
  return () => {
    load.waiting--;
  };
}

function requestsAt({ load }: ReadyService): number {
  return load.running + load.waiting;
}

/** By requests, or by K/V memory where that is scarcer: a few long contexts can fill a service as well. */
function loadOf(service: ReadyService, capacity: number): number {
  const { capacity: own, kv_free_bytes: free, kv_total_bytes: total } = service.load;
  const held = free === undefined || total === undefined ? 0 : 1 - free / total;
  return Math.max(requestsAt(service) / (own ?? capacity), held);
}

/** A region that nobody named comes last. */
function regionOf({ region }: ReadyService, order: readonly string[]): number {
  if (region === undefined) return 0;
  const place = order.indexOf(region);
  return place === -1 ? order.length : place;
}

async function look(
  env: Env,
  upstreams: readonly string[],
  pool: string,
): Promise<{ services: ServiceState[]; stale: boolean }> {
  const key = `${pool} ${upstreams.join(",")}`;
  const fresh = freshView(key);
  if (fresh) return { services: fresh.services, stale: false };
  let snapshot: FleetSnapshot;
  try {
    snapshot = await env.FLEET.getByName(pool).snapshot(upstreams);
  } catch (error) {
    console.error(JSON.stringify({ fleet: "unreachable", error: String(error) }));
    return { services: held?.key === key ? held.services : [], stale: true };
  }
  // Another request may have been faster, and may have counted itself in its view.
  const faster = freshView(key);
  if (faster) return { services: faster.services, stale: false };
  held = { key, takenAt: Date.now() - snapshot.ageMs, services: snapshot.services };
  return { services: held.services, stale: false };
}

function freshView(key: string): Held | undefined {
  return held?.key === key && Date.now() - held.takenAt < LOAD_MAX_AGE_MS ? held : undefined;
}
