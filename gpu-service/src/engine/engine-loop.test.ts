import { join } from "node:path";
import { expect, test } from "vitest";
import { openCheckpoint } from "../checkpoint/open-checkpoint.ts";
import { temporaryFolder } from "../checkpoint/testing/temporary-folder.ts";
import { EngineLoop } from "./engine-loop.ts";
import { loadExecutor } from "./executor.ts";
import type { WorkerMessage } from "./protocol.ts";
import { importTinyLlama, tinyReference } from "./testing/tiny-llama.ts";

test("a request that is cancelled has freed its row and its K/V within two steps", async () => {
  const dir = join(temporaryFolder(), "tiny");
  await importTinyLlama("tied", dir);
  const { manifest } = await openCheckpoint(dir);
  const { exits, prompts } = tinyReference("tied");
  const executor = await loadExecutor({ dir, manifest, exits, provider: "cpu", threads: 1 });
  const tokens = new Map<string, number>();
  const finished: string[] = [];
  let cancelledAt = 0;
  let freedAfter = Number.POSITIVE_INFINITY;
  const release = executor.release.bind(executor);
  executor.release = (id) => {
    if (id === "leaves") freedAfter = Math.min(freedAfter, loop.stats().steps - cancelledAt);
    release(id);
  };
  const loop = new EngineLoop(executor, { maxConcurrent: 4, kvBudget: 2 ** 26 }, (message: WorkerMessage) => {
    if (message.type !== "events") return;
    for (const { id, event } of message.events) {
      if (event.type === "finished") finished.push(`${id}: ${event.reason}`);
      else tokens.set(id, (tokens.get(id) ?? 0) + 1);
    }
    // In the middle of a step, as a client leaves.
    if (tokens.get("leaves") === 5 && cancelledAt === 0) {
      cancelledAt = loop.stats().steps;
      setImmediate(() => loop.receive({ type: "cancel", id: "leaves" }));
    }
    if (tokens.get("stays") === 40) loop.receive({ type: "close" });
  });
  const common = { sampling: { temperature: 0, topP: 1, seed: 0 }, maxTokens: 50, stopTokenIds: [], depth: 8 };
  const prompt = (prompts[0] ?? []).slice(0, 4);
  loop.receive({ type: "generate", request: { id: "stays", prompt, ...common }, submittedAt: 0 });
  loop.receive({ type: "generate", request: { id: "leaves", prompt: [...prompt, 9], ...common }, submittedAt: 0 });
  await loop.run();

  expect(cancelledAt).toBeGreaterThan(0);
  expect(finished).toContain("leaves: cancelled");
  expect(tokens.get("leaves")).toBeLessThanOrEqual(7);
  expect(tokens.get("stays")).toBeGreaterThanOrEqual(40);
  expect(freedAfter).toBeLessThanOrEqual(2);
});
