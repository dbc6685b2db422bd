import { mkdir, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { parseArgs } from "node:util";
import plans from "@fathom/edge/plans.json" with { type: "json" };
import { layerRange } from "@fathom/edge/policy/plan.ts";
import { openCheckpoint } from "@fathom/gpu-service/checkpoint/open-checkpoint.ts";
import { randomStream } from "@fathom/gpu-service/random/random-stream.ts";
import { fullDepth } from "@fathom/shared";
import { startEdge } from "../bench/edge/worker-process.ts";
import { referencePrompts } from "../bench/model.ts";
import { table } from "../bench/stats.ts";
import { SECRET, serviceProcess } from "../service/helpers/service-process.ts";
import { ask, type Outcome } from "./ask.ts";
import { figure, type Point, points, type Run } from "./figure.ts";
import { arrivals, ramp } from "./traffic.ts";

const ADMIN = "load-secret-of-the-admin";
const SHIPPED = fileURLToPath(new URL("../../gpu-service/checkpoints/smollm2-135m-nested", import.meta.url));
const AT_ONCE = 8;
const TOKENS = 32;
const SEED = 7;
/** Shares of the requests. */
const MIX = { free: 0.6, pro: 0.25, enterprise: 0.15 } as const;
type PlanName = keyof typeof MIX;
type Keys = Record<PlanName, string>;
/** How long the capacity is measured. */
const MEASURING_SECONDS = 15;

const HELP = `Shows what overload does to the plans: real requests through the router to a real service, from half its capacity to three
times as much and back. Writes load.svg and load.json.

Usage: npm run load -- [options]

Options:
  --model DIR     nested checkpoint (default: the shipped one)
  --seconds N     length (default: 240)
  --peak N        highest rate, as a multiple of the capacity (default: 3)
  --threads N     threads of the service (default: 1)
  --out DIR       where to write (default: docs/load)
  --help          this text`;

const { values } = parseArgs({
  options: {
    model: { type: "string" },
    seconds: { type: "string", default: "240" },
    peak: { type: "string", default: "3" },
    threads: { type: "string", default: "1" },
    out: { type: "string", default: "docs/load" },
    help: { type: "boolean", short: "h", default: false },
  },
});
if (values.help) console.log(HELP);
else await main(Number(values.seconds), Number(values.peak));

async function main(seconds: number, peak: number): Promise<void> {
  const dir = values.model ?? SHIPPED;
  const limits = ["--threads", values.threads, "--max-concurrent", String(AT_ONCE), "--max-waiting", "256"];
  const service = await serviceProcess(dir, limits);
  const edge = await startEdge({
    UPSTREAMS: service.url,
    SERVICE_SECRET: SECRET,
    ADMIN_SECRET: ADMIN,
    SERVICE_CAPACITY: String(AT_ONCE),
    PLANS: JSON.stringify(withoutLimits()),
  });
  try {
    const keys = await createKeys(edge.url);
    const { manifest } = await openCheckpoint(dir);
    const capacity = await measureCapacity(service.url, manifest.exits);
    console.log(`capacity: ${capacity.toFixed(2)} requests/s of ${TOKENS} tokens at the plans' default depths`);
    const outcomes = await overload(
      edge.url,
      keys,
      ramp(0.5 * capacity, peak * capacity, seconds),
      peak * capacity,
      seconds,
    );
    const run: Run = { outcomes, seconds, capacity, window: seconds / 48 };
    await mkdir(values.out, { recursive: true });
    await writeFile(join(values.out, "load.svg"), figure(run));
    await writeFile(
      join(values.out, "load.json"),
      `${JSON.stringify({ capacity, peak, seconds, points: points(run).map(short) })}\n`,
    );
    summarise(outcomes, seconds);
  } finally {
    await edge.stop();
    await service.stop();
  }
}

/** The shipped plans with budgets and rates that nobody reaches: load alone is to show. */
function withoutLimits(): object {
  const generous = { requests_per_minute: 100_000, concurrency: 10_000, monthly_budget_micro_usd: 1_000_000_000_000 };
  return Object.fromEntries(Object.entries(plans).map(([name, plan]) => [name, { ...plan, ...generous }]));
}

async function createKeys(url: string): Promise<Keys> {
  const create = async (plan: PlanName) => {
    const response = await fetch(`${url}/admin/keys`, {
      method: "POST",
      headers: { authorization: `Bearer ${ADMIN}`, "content-type": "application/json" },
      body: JSON.stringify({ tenant: plan, plan }),
    });
    return ((await response.json()) as { key: string }).key;
  };
  return { free: await create("free"), pro: await create("pro"), enterprise: await create("enterprise") };
}

/** Requests per second of the service itself when it is kept just full, every plan at the depth that it has without load. */
async function measureCapacity(url: string, exits: number[]): Promise<number> {
  const random = randomStream(SEED, 1);
  const layers = fullDepth(exits);
  const start = performance.now();
  let done = 0;
  const oneAfterAnother = async () => {
    while (performance.now() - start < 1000 * MEASURING_SECONDS) {
      const plan = draw(random());
      const preferred = layerRange(plans[plan], layers).default;
      const depth = exits.findLast((exit) => exit <= preferred) ?? exits[0];
      const { status, code } = await ask(url, SECRET, { ...body(random), fathom: { depth } }, { plan, at: 0, start });
      if (status !== 200) throw new Error(`${plan} was refused: ${status} ${code}`);
      done++;
    }
  };
  await Promise.all(Array.from({ length: AT_ONCE }, oneAfterAnother));
  return (1000 * done) / (performance.now() - start);
}

async function overload(
  url: string,
  keys: Keys,
  rate: (second: number) => number,
  highest: number,
  seconds: number,
): Promise<Outcome[]> {
  const random = randomStream(SEED, 2);
  const times = arrivals(rate, highest, seconds, random);
  const start = performance.now();
  const running: Promise<Outcome>[] = [];
  for (const at of times) {
    const wait = start + 1000 * at - performance.now();
    if (wait > 0) await new Promise((resolve) => setTimeout(resolve, wait));
    const plan = draw(random());
    running.push(ask(url, keys[plan], body(random), { plan, at, start }));
  }
  return await Promise.all(running);
}

/** A prompt of the reference with a beginning of its own, so that none is remembered from another request. */
function body(random: () => number): object {
  const prompts = referencePrompts();
  const prompt = prompts[Math.floor(random() * prompts.length)] ?? [1];
  return {
    model: "fathom",
    prompt: [5 + Math.floor(random() * 40_000), ...prompt],
    max_tokens: TOKENS,
    temperature: 0,
  };
}

function draw(share: number): PlanName {
  if (share < MIX.free) return "free";
  return share < MIX.free + MIX.pro ? "pro" : "enterprise";
}

function summarise(outcomes: readonly Outcome[], seconds: number): void {
  const phases = { "before the ramp": [0, 0.1], "at the peak": [0.4, 0.6], "at the end": [0.9, 1] } as const;
  const rows = Object.entries(phases).flatMap(([phase, [from, to]]) =>
    Object.keys(MIX).map((plan) => {
      const own = outcomes.filter((one) => one.plan === plan && one.at >= from * seconds && one.at < to * seconds);
      const served = own.filter(({ status }) => status === 200);
      const depth = served.reduce((sum, one) => sum + (one.depth ?? 0), 0) / served.length;
      const share = (key: "ttftMs" | "tpotMs", p: number) =>
        percentile(
          served.map((one) => one[key] ?? 0),
          p,
        ).toFixed(0);
      const refused = `${(100 * (1 - served.length / own.length)).toFixed(0)}%`;
      return [
        phase,
        plan,
        String(own.length),
        refused,
        depth.toFixed(1),
        share("ttftMs", 0.5),
        share("ttftMs", 0.95),
        share("tpotMs", 0.5),
      ];
    }),
  );
  console.log(table(["", "plan", "requests", "refused", "layers", "TTFT p50", "p95", "ms/token"], rows));
  const codes = new Map<string, number>();
  for (const { status, code } of outcomes)
    if (status !== 200) codes.set(`${status} ${code}`, (codes.get(`${status} ${code}`) ?? 0) + 1);
  console.log(`refusals: ${[...codes].map(([name, count]) => `${count} × ${name}`).join(", ") || "none"}`);
}

function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((x, y) => x - y);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}

/** Three digits are what such figures are worth. */
function short(point: Point): object {
  return Object.fromEntries(
    Object.entries(point).map(([key, value]) => [
      key,
      typeof value === "number" ? Number(value.toPrecision(3)) : value,
    ]),
  );
}
