import { expect, test } from "vitest";
import { meetsSlo, parseSlo } from "./slo.ts";

test("bounds are read in milliseconds, with vLLM's name too", () => {
  expect(parseSlo("ttft:500,tpot:50")).toEqual({ ttft: 500, tpot: 50 });
  expect(parseSlo("e2el:1500.5, ttft:.5")).toEqual({ e2e: 1500.5, ttft: 0.5 });
});

test.each(["", "ttft", "ttft:0", "ttft:-1", "itl:5", "ttft:5,ttft:6", "e2e:5,e2el:6", "ttft:5ms"])(
  "'%s' is refused",
  (text) => {
    expect(() => parseSlo(text)).toThrow(RangeError);
  },
);

test("all bounds must be kept; the bound itself still counts", () => {
  const slo = parseSlo("ttft:500,tpot:50");
  expect(meetsSlo(slo, { ttft_ms: 500, tpot_ms: 50, e2e_ms: 9e9 })).toBe(true);
  expect(meetsSlo(slo, { ttft_ms: 500.1, tpot_ms: 1, e2e_ms: 600 })).toBe(false);
  expect(meetsSlo(slo, { ttft_ms: 1, tpot_ms: 50.1, e2e_ms: 600 })).toBe(false);
  expect(meetsSlo(slo, { ttft_ms: 1, tpot_ms: null, e2e_ms: 600 })).toBe(true);
});
