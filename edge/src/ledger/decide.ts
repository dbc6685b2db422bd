import type { Limits, Sharing, Short, Usage } from "./ledger.ts";
import { leastCost, type Offer, type Remaining } from "./offer.ts";

/** What this ledger has left to spend. */
export function remainingOf({ settled, reserved, today }: Usage, limits: Limits, { lent }: Sharing): Remaining {
  const month = limits.monthlyBudget - settled - reserved - lent.month;
  if (limits.dailyBudget === undefined) return { month, least: month };
  return { month, least: Math.min(month, limits.dailyBudget - today.settled - today.reserved - lent.day) };
}

/** Whether a better offer than what fits here could be covered with what there is elsewhere. */
export function shortOf(offers: readonly Offer[], here: Remaining, elsewhere: number | undefined): Short | undefined {
  if (elsewhere === undefined) return undefined;
  const everywhere = here.month + elsewhere;
  const best = offers.find(({ cost, keep }) => cost + keep <= everywhere) ?? offers.at(-1);
  return best && best.cost > here.least ? { short: true, need: best.cost } : undefined;
}

/** The window to wait for: the month if it does not cover the cheapest offer, else the day. */
export function refusedWindow(offers: readonly Offer[], { month }: Remaining): "month" | "day" {
  return month < (leastCost(offers) ?? 0) ? "month" : "day";
}

/** @throws RangeError when an amount is not a whole number of micro-USD ≥ 0. */
export function requireAmounts(...amounts: number[]): void {
  for (const amount of amounts) {
    if (!Number.isSafeInteger(amount) || amount < 0) {
      throw new RangeError(`an amount must be a whole number of micro-USD ≥ 0, not ${amount}`);
    }
  }
}
