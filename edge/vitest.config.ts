import { cloudflareTest } from "@cloudflare/vitest-plugin";
import { defineConfig } from "vitest/config";
import { TEST_PLANS } from "./testing/plans.ts";
import { TEST_ADMIN_SECRET, TEST_SERVICE_SECRET, TEST_WEBHOOK_SECRET } from "./testing/secrets.ts";

// wrangler.jsonc names the secrets; they are looked for here.
process.env.SERVICE_SECRET = TEST_SERVICE_SECRET;
process.env.ADMIN_SECRET = TEST_ADMIN_SECRET;

export default defineConfig({
  plugins: [
    cloudflareTest(({ inject }) => ({
      wrangler: { configPath: "./wrangler.jsonc" },
      miniflare: {
        bindings: {
          SERVICE_SECRET: TEST_SERVICE_SECRET,
          ADMIN_SECRET: TEST_ADMIN_SECRET,
          UPSTREAMS: `${inject("stubUrl")}/main`,
          BILLING_WEBHOOK_URL: `${inject("stubUrl")}/billing/hooks`,
          BILLING_WEBHOOK_SECRET: TEST_WEBHOOK_SECRET,
          WEBHOOKS_TO_LOCALHOST: "true",
          PLANS: JSON.stringify(TEST_PLANS),
        },
      },
    })),
  ],
  test: {
    name: "edge",
    include: ["src/**/*.test.ts"],
    testTimeout: 60_000,
    // One worker for all files, as in life: tests keep apart by tenants and services of their own.
    isolate: false,
    setupFiles: ["./src/testing/fresh-breakers.ts"],
    globalSetup: ["./testing/global-setup.ts"],
  },
});
