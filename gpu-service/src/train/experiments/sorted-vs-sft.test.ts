import { expect, test } from "vitest";
import { type ComparedMethod, comparisonTable, sortedVsSft } from "./sorted-vs-sft.ts";

test("sorted training makes the shallow exits usable and leaves full depth as it is", async () => {
  const result = await sortedVsSft({
    seed: 42,
    steps: 400,
    batch: 32,
    learningRate: 4e-3,
    hidden: 64,
    layers: 4,
    exits: [1, 2, 3, 4],
    heldOut: 200,
  });
  const losses = (method: ComparedMethod) =>
    result.rows.find((row) => row.method === method)?.exits.map(({ loss }) => loss) ?? [];
  const [sft, soft, lite, ict] = [losses("sft"), losses("soft"), losses("lite"), losses("sft+ict")];
  for (let e = 0; e < 3; e++) {
    expect(soft[e], `exit ${e + 1}`).toBeLessThan(0.9 * (sft[e] ?? 0));
    expect(lite[e], `exit ${e + 1}`).toBeLessThan(0.9 * (sft[e] ?? 0));
    expect(ict[e], `exit ${e + 1}`).toBeLessThan(sft[e] ?? 0);
  }
  expect(soft[3]).toBeLessThan(1.1 * (sft[3] ?? 0));
  expect(ict[3]).toBeCloseTo(sft[3] ?? 0, 4);
  const extra = result.rows.map(({ method, extraParameters }) => [method, extraParameters > 0]);
  expect(Object.fromEntries(extra)).toEqual({
    sft: false,
    "sft+ict": true,
    sortednet: false,
    lite: false,
    soft: false,
  });
  expect(comparisonTable(result).split("\n")).toHaveLength(2 + 5);
}, 300_000);
