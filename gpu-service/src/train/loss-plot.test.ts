import { expect, test } from "vitest";
import { lossPlot } from "./loss-plot.ts";

const line = (type: string, step: number, exits: object) => JSON.stringify({ type, step, exits });

test("every exit has a line of its steps and a dot per evaluation", () => {
  const metrics = [
    line("eval", 0, { 4: { loss: 8 }, 8: { loss: 4 } }),
    ...Array.from({ length: 1000 }, (_, step) => line("step", step, { [step % 2 ? 4 : 8]: { loss: 4 } })),
    line("eval", 1000, { 4: { loss: 2 }, 8: { loss: 1 } }),
  ].join("\n");
  const svg = lossPlot(`${metrics}\n`);
  expect(svg.match(/<circle/g)).toHaveLength(4);
  const lines = [...svg.matchAll(/points="([^"]*)"/g)].map(([, points = ""]) => points.split(" "));
  expect(lines).toHaveLength(2);
  for (const points of lines) {
    expect(points.length).toBeLessThanOrEqual(300);
    expect(new Set(points.map((point) => point.split(",")[1])).size).toBe(1);
  }
  expect(svg).toContain(">exit 4<");
  expect(svg).toContain(">1000<");
});

test("a run without a step yet gives an empty plot", () => {
  expect(lossPlot("")).toContain("</svg>");
});
