import { defineConfig } from "vitest/config";
import { reporters } from "./vitest.reporters.ts";

const exclude = ["**/node_modules/**", "test/real-model/**", "test/peers/**"];

const onNode = (name: string, concurrent = true) => ({
  test: {
    name,
    include: [`${name}/**/*.test.ts`],
    exclude,
    testTimeout: 60_000,
    hookTimeout: 120_000,
    fileParallelism: concurrent,
  },
});

// The edge brings a config of its own: its tests run inside workerd.
export default defineConfig({
  test: {
    reporters,
    silent: "passed-only",
    projects: [
      onNode("shared"),
      onNode("gpu-service"),
      onNode("infra"),
      onNode("test", false),
      "edge/vitest.config.ts",
    ],
  },
});
