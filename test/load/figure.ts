import * as Plot from "@observablehq/plot";
import { parseHTML } from "linkedom";
import type { Outcome } from "./ask.ts";

const WIDTH = 900;
const HEIGHT = 190;
const PLANS = ["free", "pro", "enterprise"];
const COLOURS = ["#ff725c", "#efb118", "#4269d0"];

export interface Run {
  outcomes: readonly Outcome[];
  seconds: number;
  /** Requests per second that the service can answer at the plans' default depths. */
  capacity: number;
  /** Seconds that share a point. */
  window: number;
}

/** One point of a curve: a plan in a window of time. */
export interface Point {
  plan: string;
  second: number;
  /** Requests per second, as a share of the capacity. */
  offered: number;
  depth: number | undefined;
  refused: number;
  ttft: number | undefined;
  tpot: number | undefined;
}

/** The run as curves: medians and means of every plan in windows of time. */
export function points({ outcomes, seconds, capacity, window }: Run): Point[] {
  return PLANS.flatMap((plan) =>
    Array.from({ length: Math.floor(seconds / window) }, (_, i): Point => {
      const own = outcomes.filter((one) => one.plan === plan && Math.floor(one.at / window) === i);
      const depths = own.map(({ depth }) => depth).filter((depth) => depth !== undefined);
      return {
        plan,
        second: (i + 0.5) * window,
        offered: own.length / window / capacity,
        depth: depths.length > 0 ? depths.reduce((x, y) => x + y, 0) / depths.length : undefined,
        refused: own.length === 0 ? 0 : own.filter(({ status }) => status !== 200).length / own.length,
        ttft: median(own.map(({ ttftMs }) => ttftMs)),
        tpot: median(own.map(({ tpotMs }) => tpotMs)),
      };
    }),
  );
}

/** The curves as one SVG: what was offered, and the depth, latency and refusals of every plan. */
export function figure(run: Run): string {
  const all = points(run);
  const total = new Map<number, number>();
  for (const { second, offered } of all) total.set(second, (total.get(second) ?? 0) + offered);
  const sum = [...total].map(([second, offered]) => ({ second, offered, plan: "all" }));
  const panels = [
    panel("offered requests, as a multiple of the capacity", [
      Plot.areaY(all, { x: "second", y: "offered", fill: "plan", fillOpacity: 0.7, order: PLANS }),
      Plot.ruleY([1], { strokeDasharray: "4 3" }),
      Plot.text(sum.slice(-1), { x: "second", y: 1, text: () => "capacity", textAnchor: "end", dy: -6 }),
    ]),
    panel("mean depth, layers", [line(all, "depth")]),
    panel("time to the first token, median ms", [line(all, "ttft")], { type: "log" }),
    panel("time per token, median ms", [line(all, "tpot")]),
    panel("share refused", [line(all, "refused")], { domain: [0, 1] }),
  ];
  const height = panels.length * HEIGHT;
  const placed = panels.map((svg, i) => svg.replace("<svg", `<svg y="${i * HEIGHT}"`));
  return (
    `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${height}" width="${WIDTH}" height="${height}">` +
    `<rect width="100%" height="100%" fill="white"/><g color="#222">${placed.join("")}</g></svg>\n`
  );
}

function panel(label: string, marks: Plot.Markish[], y: Plot.ScaleOptions = {}): string {
  const { document } = parseHTML("<html></html>");
  const plot = Plot.plot({
    document,
    width: WIDTH,
    height: HEIGHT,
    marginLeft: 60,
    marginRight: 90,
    x: { label: "seconds" },
    y: { label, grid: true, ...y },
    color: { domain: PLANS, range: COLOURS },
    marks,
  });
  return plot.outerHTML;
}

function line(data: readonly Point[], y: "depth" | "ttft" | "tpot" | "refused"): Plot.Markish[] {
  const known = data.filter((point) => point[y] !== undefined);
  return [
    Plot.lineY(known, { x: "second", y, stroke: "plan", strokeWidth: 2 }),
    Plot.text(
      known,
      Plot.selectLast({ x: "second", y, z: "plan", text: "plan", fill: "plan", textAnchor: "start", dx: 5 }),
    ),
  ];
}

function median(values: readonly (number | undefined)[]): number | undefined {
  const known = values.filter((value) => value !== undefined).sort((x, y) => x - y);
  return known[known.length >> 1];
}
