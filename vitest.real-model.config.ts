import { defineConfig } from "vitest/config";
import { reporters } from "./vitest.reporters.ts";

// Suites that need the real model: `npm run test:real-model` says how to get it.
export default defineConfig({
  test: {
    reporters,
    name: "real-model",
    include: ["test/real-model/**/*.test.ts"],
    testTimeout: 600_000,
    hookTimeout: 600_000,
    fileParallelism: false,
  },
});
