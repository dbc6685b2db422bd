import { env } from "cloudflare:workers";
import shippedPlans from "../plans.json" with { type: "json" };
import { createApp } from "./app.ts";
import { consumeTickets, TICKETS } from "./batch/consume.ts";
import { type Plans, parsePlans } from "./policy/plan.ts";
import { settingsOf } from "./settings.ts";
import { consume } from "./usage/consume.ts";
import { startReconciliation } from "./usage/nightly.ts";

export { Batch } from "./batch/batch.ts";
export { Directory } from "./directory/directory.ts";
export { Fleet } from "./fleet/fleet.ts";
export { TenantLedger } from "./ledger/tenant-ledger.ts";

// Checked here, not at the first request: a worker that cannot do its work must not start.
settingsOf(env);

const plans = configuredPlans();
const app = createApp(plans);

export default {
  fetch: app.fetch,
  queue: (batch, env, ctx) =>
    batch.queue === TICKETS ? consumeTickets(batch, { env, ctx, plans }) : consume(batch, env),
  scheduled: ({ scheduledTime }, env) => startReconciliation(scheduledTime, env),
} satisfies ExportedHandler<Env>;

/** The plans of the PLANS variable, or else the shipped ones. */
function configuredPlans(): Plans {
  if (env.PLANS === undefined || env.PLANS === "") return parsePlans(shippedPlans, "plans.json");
  let value: unknown;
  try {
    value = JSON.parse(env.PLANS);
  } catch (error) {
    throw new Error(`The variable PLANS is not JSON: ${String(error)}`);
  }
  return parsePlans(value, "The variable PLANS");
}
