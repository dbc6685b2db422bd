import type { Limits } from "./ledger.ts";

/** One of several ledgers that serve a tenant together. */
export interface Shard {
  tenant: string;
  index: number;
  /** How many there are. */
  of: number;
}

/** A tenant's name has no slash, so that no tenant is another's shard. */
export function shardName({ tenant, index }: Shard): string {
  return `${tenant}/${index}`;
}

/** A shard's part of a limit; the parts of all shards sum up to it. */
export function portion(limit: number, { index, of }: Pick<Shard, "index" | "of">): number {
  return Math.floor(limit / of) + (index < limit % of ? 1 : 0);
}

/** A shard's rate and concurrency. Budgets are not cut up: they are lent. */
export function shardLimits(limits: Limits, shard: Shard): Limits {
  return {
    ...limits,
    requestsPerMinute: portion(limits.requestsPerMinute, shard),
    concurrency: portion(limits.concurrency, shard),
  };
}
