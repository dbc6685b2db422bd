// The bindings of wrangler.jsonc, for `cloudflare:workers` and for the handlers.
declare namespace Cloudflare {
  interface GlobalProps {
    mainModule: typeof import("./index.ts");
    durableNamespaces: "TenantLedger" | "Fleet";
  }
  interface Env {
    LEDGER: DurableObjectNamespace<import("./ledger/tenant-ledger.ts").TenantLedger>;
    FLEET: DurableObjectNamespace<import("./fleet/fleet.ts").Fleet>;
    KEYS: KVNamespace;
    UPSTREAMS: string;
    SERVICE_CAPACITY: string;
    REQUEST_TIMEOUT_SECONDS: string;
    SERVICE_SECRET: string;
    ADMIN_SECRET: string;
    PLANS?: string;
  }
}

interface Env extends Cloudflare.Env {}
