import { DurableObject } from "cloudflare:workers";
import type { Heartbeat } from "@fathom/shared";
import { settingsOf } from "../settings.ts";
import { probeLoad, probeModel } from "./probe.ts";
import { Registry } from "./registry.ts";
import type { ServiceState } from "./service-state.ts";

/** How old a service's load may be, milliseconds; also the least time between two probes of one service. */
export const LOAD_MAX_AGE_MS = 1000;

/** How long a description of a model is believed. A service that was away is asked anew. */
const MODEL_MAX_AGE_MS = 30_000;

interface Watched {
  state: ServiceState;
  probedAt: number;
  describedAt: number;
  probing: Promise<void> | undefined;
  /** Why it is not ready; undefined when it is. */
  problem: string | undefined;
}

/** What the fleet knows, and for how long it has known the oldest part. */
export interface FleetSnapshot {
  services: ServiceState[];
  ageMs: number;
}

/**
 * Watches the GPU services of one pool. Some register themselves and keep telling; the others are probed when somebody asks,
 * together and at most once a second each. Nothing is stored, since an old load says nothing.
 */
export class Fleet extends DurableObject<Env> {
  readonly #watched = new Map<string, Watched>();
  readonly #registry = new Registry();

  /** What a registered service says; its signature was verified. */
  heartbeat(beat: Heartbeat): ReturnType<Registry["take"]> {
    return this.#registry.take(beat, Date.now());
  }

  /** State of the services at the given base URLs, at most a second old, and of those that registered. */
  async snapshot(urls: readonly string[]): Promise<FleetSnapshot> {
    const watched = await Promise.all(urls.map((url) => this.#refresh(url)));
    const now = Date.now();
    const registered = this.#registry.present(now);
    const known = new Set(registered.map(({ url }) => url));
    return {
      services: [...registered, ...watched.map(({ state }) => state).filter(({ url }) => !known.has(url))],
      ageMs: Math.max(0, ...watched.filter(({ state }) => state.load).map(({ probedAt }) => now - probedAt)),
    };
  }

  async #refresh(url: string): Promise<Watched> {
    const known = this.#watched.get(url);
    const service = known ?? {
      state: unheard(url),
      probedAt: 0,
      describedAt: 0,
      probing: undefined,
      problem: undefined,
    };
    if (!known) this.#watched.set(url, service);
    if (Date.now() - service.probedAt >= LOAD_MAX_AGE_MS) {
      service.probing ??= this.#probe(service).finally(() => {
        service.probing = undefined;
      });
      // Nobody waits for one that did not answer the last time: it would hold up those that the others could serve.
      if (service.probedAt === 0 || service.state.load) await service.probing;
    }
    return service;
  }

  async #probe(service: Watched): Promise<void> {
    const { url, model } = service.state;
    try {
      const load = await probeLoad(url);
      const wasAway = service.state.load === undefined;
      const outdated = Date.now() - service.describedAt >= MODEL_MAX_AGE_MS;
      service.state = { url, region: undefined, load, model };
      if (model === undefined || wasAway || outdated) {
        service.state.model = await probeModel(url, settingsOf(this.env).serviceSecret);
        service.describedAt = Date.now();
      }
      service.problem = undefined;
    } catch (error) {
      const problem = String(error);
      if (problem !== service.problem) console.warn(JSON.stringify({ service: url, unavailable: problem }));
      service.problem = problem;
      service.state = { url, region: undefined, load: undefined, model };
    }
    service.probedAt = Date.now();
  }
}

function unheard(url: string): ServiceState {
  return { url, region: undefined, load: undefined, model: undefined };
}
