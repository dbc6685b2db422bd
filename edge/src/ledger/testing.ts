import type { Holder, Metered } from "../usage/usage-row.ts";

/** Who the tests' requests are from. */
export const HOLDER: Holder = {
  tenant: "acme",
  ledger: "acme",
  key_id: "0123456789abcdef",
  plan: "pro",
  model: "stub-30",
};

/** What the tests' answers used. */
export const METERED: Metered = {
  service: "http://gpu.test",
  exit: "fixed",
  prompt_tokens: 3,
  completion_tokens: 5,
  layer_tokens: 192,
  status: "complete",
};
