import { expect, test } from "vitest";
import { LoadMeter } from "./load-meter.ts";

const figures = { running: 4, generatedTokens: 0, kvBytes: 700, kvBudgetBytes: 1000, prefixCacheBytes: 300 };

test("free K/V counts what remembered prefixes would give up", () => {
  expect(new LoadMeter().read(figures, 0)).toEqual({ kv_free_bytes: 600, kv_total_bytes: 1000 });
  expect(new LoadMeter().read({ ...figures, kvBytes: 2000, prefixCacheBytes: 0 }, 0).kv_free_bytes).toBe(0);
});

test("the time per token is a running request's, since the last reading", () => {
  const meter = new LoadMeter();
  meter.read(figures, 1000);
  // Four streams that have decoded 100 tokens in half a second: 25 each, 20 ms apart.
  expect(meter.read({ ...figures, generatedTokens: 100 }, 1500).ms_per_token).toBe(20);
  expect(meter.read({ ...figures, generatedTokens: 100 }, 2000)).not.toHaveProperty("ms_per_token");
});
