/**
 * How a tenant's ledger lends parts of a budget to the shards of it: the protocol as pure functions, for one shard and one
 * window. Every figure is a sum since the window began, so it only grows, and a message may be lost, repeated or overtaken:
 * whoever hears a figure keeps the larger one.
 *
 * What is on its way counts as lent on both sides (`granted ≥ received`, `returned ≤ givenBack`), so at every moment, after a
 * crash of either side too, what all shards hold and what is free are at most the budget. Micro-USD.
 */

/** The lender's side. */
export interface Share {
  granted: number;
  returned: number;
}

/** The shard's side. */
export interface Allotment {
  received: number;
  givenBack: number;
}

export const NO_SHARE: Share = { granted: 0, returned: 0 };
export const NO_ALLOTMENT: Allotment = { received: 0, givenBack: 0 };

/** What the lender may not give to anybody else. */
export function lentTo({ granted, returned }: Share): number {
  return granted - returned;
}

/** What the shard may spend in all, what it has spent included. */
export function held({ received, givenBack }: Allotment): number {
  return received - givenBack;
}

/** The shard hears what it was granted. */
export function receive(allotment: Allotment, granted: number): Allotment {
  return { ...allotment, received: Math.max(allotment.received, granted) };
}

/** The shard gives up what it has not spent. @throws RangeError when it does not hold as much. */
export function giveBack(allotment: Allotment, amount: number): Allotment {
  if (amount < 0 || amount > held(allotment)) throw new RangeError(`cannot give back ${amount}`);
  return { ...allotment, givenBack: allotment.givenBack + amount };
}

/** The lender hears what the shard gave back. @throws RangeError when that was never granted. */
export function takeBack(share: Share, givenBack: number): Share {
  if (givenBack > share.granted) throw new RangeError(`${givenBack} given back of ${share.granted}`);
  return { ...share, returned: Math.max(share.returned, givenBack) };
}

/**
 * The lender grants what the shard needs, and a part of what is left in advance: less and less, so that the last of a budget
 * is not spread over shards that do not need it. If less is free than is needed, nothing is granted: the idle parts of the
 * others are to be collected first.
 * @param received what the shard had received when it asked; a grant whose answer was lost is not made twice
 * @param free what nobody holds
 */
export function grant(share: Share, received: number, need: number, free: number, shards: number): Share {
  const missing = need - (share.granted - received);
  if (missing <= 0 || missing > free) return share;
  const advance = Math.floor(free / (2 * shards));
  return { ...share, granted: share.granted + Math.max(missing, advance) };
}

/** The lender grants everything that is free, up to the need: nothing more can be collected. */
export function grantRest(share: Share, received: number, need: number, free: number): Share {
  const missing = Math.max(0, need - (share.granted - received));
  return { ...share, granted: share.granted + Math.min(missing, Math.max(0, free)) };
}
