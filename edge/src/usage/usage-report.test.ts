import fc from "fast-check";
import { expect, test } from "vitest";
import { csvOf, ReportQuery, totalOf, type UsageLine } from "./usage-report.ts";

const LINE: UsageLine = {
  day: "2026-11-24",
  key_id: "0123456789abcdef",
  depth: 18,
  requests: 2,
  prompt_tokens: 6,
  completion_tokens: 10,
  layer_tokens: 288,
  micro_usd: 4,
};

test("without dates it is this month until today", () => {
  const today = new Date().toISOString().slice(0, 10);
  expect(ReportQuery.parse({})).toEqual({ from: `${today.slice(0, 7)}-01`, to: today, format: "json" });
  expect(ReportQuery.parse({ to: "2026-02-10" })).toMatchObject({ from: "2026-02-01", to: "2026-02-10" });
});

test.each([
  [{ from: "yesterday" }, "from"],
  [{ to: "2026-02-30" }, "to"],
  [{ from: "2026-03-01", to: "2026-02-28" }, "from"],
  [{ from: "2025-01-01", to: "2026-01-01" }, "from"],
  [{ format: "xml" }, "format"],
])("names the field: %j", (query, field) => {
  const result = ReportQuery.safeParse(query);
  expect(result.error?.issues.map(({ path }) => path[0])).toEqual([field]);
});

test("sums up", () => {
  expect(totalOf([])).toMatchObject({ requests: 0, micro_usd: 0 });
  fc.assert(
    fc.property(fc.nat(50), (n) => {
      const total = totalOf(Array.from({ length: n }, () => LINE));
      expect(total).toEqual({
        requests: 2 * n,
        prompt_tokens: 6 * n,
        completion_tokens: 10 * n,
        layer_tokens: 288 * n,
        micro_usd: 4 * n,
      });
    }),
  );
});

test("writes CSV", () => {
  expect(csvOf([LINE])).toBe(
    "day,key_id,depth,requests,prompt_tokens,completion_tokens,layer_tokens,micro_usd\r\n" +
      "2026-11-24,0123456789abcdef,18,2,6,10,288,4\r\n",
  );
});
