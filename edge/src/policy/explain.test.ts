import { expect, test } from "vitest";
import { type ExplainInput, explainDepth } from "./explain.ts";
import { PLAN } from "./testing.ts";

const explain = (more: Partial<ExplainInput> = {}) =>
  explainDepth({
    planName: "pro",
    plan: PLAN,
    exits: [6, 12, 18, 24, 30],
    load: 0.6,
    wish: undefined,
    worst: { promptTokens: 50, maxTokens: 50, contextLength: 2000, price: 1000 },
    remaining: 8000,
    ...more,
  });

test("says of every exit what became of it, and which offer the budget covers", () => {
  expect(explain()).toEqual({
    plan: { name: "pro", min: 12, default: 24, max: 24, priority: 0 },
    load: 0.6,
    shedding: expect.closeTo(0.4, 9),
    remaining_micro_usd: 8000,
    exits: [
      { depth: 6, verdict: "plan", why: "the plan 'pro' runs 12 to 24 layers" },
      { depth: 12, verdict: "offered", why: "put to the ledger" },
      { depth: 18, verdict: "offered", why: "put to the ledger" },
      { depth: 24, verdict: "load", why: "at a load of 0.60 it is too slow for priority 0" },
      { depth: 30, verdict: "plan", why: "the plan 'pro' runs 12 to 24 layers" },
    ],
    // 100 tokens at 18 and 12 layers, one micro-USD each; the deeper one must leave half of a tenth of the month's budget.
    offers: [
      { depth: 18, reason: "load", cost_micro_usd: 1800, keep_micro_usd: 5000, covered: true },
      { depth: 12, reason: "budget", cost_micro_usd: 1200, keep_micro_usd: 0, covered: true },
    ],
    chosen: { depth: 18, reason: "load" },
  });
});

test("a small budget takes the shallower offer, one that covers nothing none", () => {
  expect(explain({ remaining: 2000 }).chosen).toEqual({ depth: 12, reason: "budget" });
  expect(explain({ remaining: 1199 }).chosen).toBeNull();
});

test("what cannot run at all is refused as the router refuses it", () => {
  expect(() => explain({ wish: { depth: 30 } })).toThrow("plan 'pro' runs 12 to 24 layers");
});
