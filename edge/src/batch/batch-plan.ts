import type { Plan } from "../policy/plan.ts";

/** Without a price of its own in the plan, a batch costs half. */
const DEFAULT_PRICE_PERCENT = 50;

/**
 * A plan as it holds for the lines of a batch: at the batch price (rounded up to whole nano-USD), and with half of the rate
 * and of the concurrency, so that a batch leaves the other half to the requests that somebody waits for. Pure.
 */
export function batchPlan(plan: Plan): Plan {
  const percent = plan.batch_price_percent ?? DEFAULT_PRICE_PERCENT;
  return {
    ...plan,
    price_nano_usd_per_layer_token: Math.ceil((plan.price_nano_usd_per_layer_token * percent) / 100),
    requests_per_minute: Math.max(1, plan.requests_per_minute >> 1),
    concurrency: Math.max(1, plan.concurrency >> 1),
  };
}

/**
 * How many lines may be sent to the pool now: as many as keep every service below the load at which batches stand back.
 * @param services their load (0 idle, 1 full, more when requests wait) and the requests in flight with which each is full
 */
export function batchRoom(services: readonly { load: number; capacity: number }[], maxLoad: number): number {
  const rooms = services.map(({ load, capacity }) => Math.max(0, Math.ceil((maxLoad - load) * capacity)));
  return rooms.reduce((a, b) => a + b, 0);
}
