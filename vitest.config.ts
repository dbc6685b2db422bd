import { defineConfig } from "vitest/config";

export default defineConfig({
  test: {
    projects: ["edge/vitest.config.ts", "shared", "gpu-service", "test"].map((p) =>
      p.endsWith(".ts")
        ? p
        : {
            test: {
              name: p,
              include: [`${p}/**/*.test.ts`],
              exclude: ["**/node_modules/**", "test/real-model/**"],
              testTimeout: 60_000,
            },
          },
    ),
  },
});
