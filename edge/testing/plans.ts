import shipped from "../plans.json" with { type: "json" };

const generous = shipped.enterprise;

/** The shipped plans on the exits of the stub, one apart, and some with one limit each that a test can reach. */
export const TEST_PLANS = {
  ...shipped,
  free: { ...shipped.free, depth: { min: "25%", max: "60%", default: "60%" } },
  pro: { ...shipped.pro, depth: { min: "40%", max: "80%", default: "80%" } },
  "two-a-minute": { ...generous, requests_per_minute: 2 },
  "one-at-once": { ...generous, concurrency: 1 },
  /** Covers a few answers of ten tokens: one layer-token costs one micro-USD. */
  poor: { ...generous, price_nano_usd_per_layer_token: 1000, monthly_budget_micro_usd: 2000 },
  /** One layer-token costs one micro-USD, and there are plenty. */
  exact: { ...generous, price_nano_usd_per_layer_token: 1000 },
  /** As "exact", with a budget for a few answers a day. */
  daily: { ...generous, price_nano_usd_per_layer_token: 1000, daily_budget_micro_usd: 2000 },
  /** As "exact", with a budget of a thousand tokens, to which answers are shortened. */
  clipped: {
    ...generous,
    price_nano_usd_per_layer_token: 1000,
    monthly_budget_micro_usd: 18_000,
    clip_max_tokens: true,
  },
  /** As "exact", served by four ledgers. */
  sharded: { ...generous, price_nano_usd_per_layer_token: 1000, ledger_shards: 4 },
  terse: { ...generous, max_tokens: 3 },
};
