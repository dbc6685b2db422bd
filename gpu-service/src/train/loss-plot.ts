const WIDTH = 900;
const HEIGHT = 420;
const MARGIN = { left: 50, right: 110, top: 20, bottom: 40 };
/** Steps that share one point of a curve, at most this many points. */
const POINTS = 300;
const COLOURS = [
  "#4269d0",
  "#efb118",
  "#ff725c",
  "#6cc5b0",
  "#3ca951",
  "#ff8ab7",
  "#a463f2",
  "#97bbf5",
  "#9c6b4e",
  "#9498a0",
];

interface Line {
  type: string;
  step: number;
  exits: Record<string, { loss: number }>;
}

/**
 * Draws a run's loss per exit as SVG: training losses as lines, averaged over neighbouring steps, held-out ones as dots.
 * @param metrics content of `metrics.jsonl`
 */
export function lossPlot(metrics: string): string {
  const lines = metrics
    .trim()
    .split("\n")
    .filter((line) => line !== "")
    .map((line) => JSON.parse(line) as Line);
  const lastStep = Math.max(1, ...lines.map(({ step }) => step));
  const losses = lines.flatMap(({ exits }) => Object.values(exits).map(({ loss }) => loss));
  const highest = Math.max(1, ...losses.filter(Number.isFinite));
  const x = (step: number) => MARGIN.left + (step / lastStep) * (WIDTH - MARGIN.left - MARGIN.right);
  const y = (loss: number) => HEIGHT - MARGIN.bottom - (loss / highest) * (HEIGHT - MARGIN.top - MARGIN.bottom);
  const depths = [...new Set(lines.flatMap(({ exits }) => Object.keys(exits)))].sort((a, b) => Number(a) - Number(b));
  const curves = depths.map((depth, i) => {
    const colour = COLOURS[i % COLOURS.length] ?? "black";
    const of = (type: string) =>
      lines.flatMap(({ type: kind, step, exits }) => {
        const loss = exits[depth]?.loss;
        return kind === type && loss !== undefined ? [{ step, loss }] : [];
      });
    const path = averaged(of("step"), lastStep).map(({ step, loss }) => `${x(step).toFixed(1)},${y(loss).toFixed(1)}`);
    const dots = of("eval").map(
      ({ step, loss }) => `<circle cx="${x(step).toFixed(1)}" cy="${y(loss).toFixed(1)}" r="3.5" fill="${colour}"/>`,
    );
    const top = MARGIN.top + 18 * i;
    return [
      `<polyline fill="none" stroke="${colour}" stroke-width="1.5" points="${path.join(" ")}"/>`,
      ...dots,
      `<text x="${WIDTH - MARGIN.right + 12}" y="${top + 12}" fill="${colour}">exit ${depth}</text>`,
    ].join("\n");
  });
  const ticks = [0, 0.25, 0.5, 0.75, 1].flatMap((share) => [
    `<text x="${MARGIN.left - 8}" y="${y(share * highest) + 4}" text-anchor="end">${(share * highest).toFixed(1)}</text>`,
    `<text x="${x(share * lastStep)}" y="${HEIGHT - 18}" text-anchor="middle">${Math.round(share * lastStep)}</text>`,
    `<line x1="${MARGIN.left}" x2="${WIDTH - MARGIN.right}" y1="${y(share * highest)}" y2="${y(share * highest)}" stroke="#ddd"/>`,
  ]);
  return `<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 ${WIDTH} ${HEIGHT}" font-family="sans-serif" font-size="12">
<rect width="100%" height="100%" fill="white"/>
${ticks.join("\n")}
<text x="${x(lastStep / 2)}" y="${HEIGHT - 4}" text-anchor="middle">step (lines: training, dots: held out; nats per token)</text>
${curves.join("\n")}
</svg>
`;
}

function averaged(points: readonly { step: number; loss: number }[], lastStep: number) {
  const width = Math.max(1, Math.ceil((lastStep + 1) / POINTS));
  const groups = Map.groupBy(points, ({ step }) => Math.floor(step / width));
  return [...groups.values()].map((group) => ({
    step: group.reduce((sum, { step }) => sum + step, 0) / group.length,
    loss: group.reduce((sum, { loss }) => sum + loss, 0) / group.length,
  }));
}
