// The bindings of wrangler.jsonc, for `cloudflare:workers` and for the handlers.
declare namespace Cloudflare {
  interface GlobalProps {
    mainModule: typeof import("./index.ts");
    durableNamespaces: "TenantLedger" | "Fleet" | "Batch" | "Directory";
  }
  interface Env {
    LEDGER: DurableObjectNamespace<import("./ledger/tenant-ledger.ts").TenantLedger>;
    FLEET: DurableObjectNamespace<import("./fleet/fleet.ts").Fleet>;
    DIRECTORY: DurableObjectNamespace<import("./directory/directory.ts").Directory>;
    BATCH: DurableObjectNamespace<import("./batch/batch.ts").Batch>;
    BATCH_QUEUE: Queue<import("./batch/batch.ts").Ticket>;
    FILES: R2Bucket;
    KEYS: KVNamespace;
    USAGE: D1Database;
    USAGE_QUEUE: Queue<import("./usage/usage-row.ts").UsageRow>;
    EVENTS_QUEUE: Queue<import("./usage/events.ts").EventMessage>;
    RECONCILE_QUEUE: Queue<import("./usage/reconcile.ts").ReconcileJob>;
    UPSTREAMS: string;
    SERVICE_CAPACITY: string;
    REQUEST_TIMEOUT_SECONDS: string;
    SERVICE_SECRET: string;
    ADMIN_SECRET: string;
    FIRST_BYTE_TIMEOUT_MS?: string;
    POOL?: string;
    REGION_ORDER?: string;
    HEDGE_AFTER_MS?: string;
    PLANS?: string;
    BATCH_MAX_FILE_MEGABYTES?: string;
    BATCH_MAX_LINES?: string;
    BATCH_MAX_LOAD_PERCENT?: string;
    BILLING_WEBHOOK_URL?: string;
    BILLING_WEBHOOK_SECRET?: string;
    WEBHOOKS_TO_LOCALHOST?: string;
  }
}

interface Env extends Cloudflare.Env {}
