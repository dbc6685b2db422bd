import { spawn } from "node:child_process";
import { once } from "node:events";
import { Agent, request } from "node:http";
import { fileURLToPath } from "node:url";
import { table } from "../stats.ts";
import { isolateMilliseconds } from "./cpu-profile.ts";
import { startEdge, startPassThrough, WORKER, type WorkerProcess } from "./worker-process.ts";

const SECRET = "bench-secret-of-the-services";
const ADMIN = "bench-secret-of-the-admin";
const BODY = JSON.stringify({ model: "fathom", prompt: "one two three four", max_tokens: 4 });
const WARM_UP = 300;

interface EdgeBenchOptions {
  /** Requests one after the other, per target and round. */
  requests: number;
  rounds: number;
  /** Requests per second of the open loop. */
  rate: number;
  /** Its length, seconds. */
  seconds: number;
}

interface Target {
  name: string;
  url: string;
  headers: Record<string, string>;
  worker?: WorkerProcess;
}

const agent = new Agent({ keepAlive: true, maxSockets: 256 });

/**
 * What the router adds to calling a service: latency one request at a time, beside a worker that only passes requests on; its
 * CPU time per request; and whether one process keeps up with a rate.
 */
export async function benchEdge({ requests, rounds, rate, seconds }: EdgeBenchOptions): Promise<void> {
  const stub = spawn(process.execPath, [fileURLToPath(new URL("stub-service.ts", import.meta.url))], {
    stdio: ["pipe", "pipe", "inherit"],
  });
  const [printed] = (await once(stub.stdout, "data")) as [Buffer];
  const service = printed.toString().trim();
  const variables = {
    UPSTREAMS: service,
    SERVICE_CAPACITY: "100000",
    SERVICE_SECRET: SECRET,
    ADMIN_SECRET: ADMIN,
    PLANS: JSON.stringify(plans),
  };
  const [edge, passThrough] = [await startEdge(variables), await startPassThrough(service)];
  try {
    const key = await createKey(edge.url);
    const direct = { authorization: `Bearer ${SECRET}` };
    const targets: Target[] = [
      { name: "service, directly", url: service, headers: direct },
      { name: "a worker that passes on", url: passThrough.url, headers: direct, worker: passThrough },
      { name: "the router", url: edge.url, headers: { authorization: `Bearer ${key}` }, worker: edge },
    ];
    await latency(targets, requests, rounds);
    await isolateTime(targets[2] as Target, targets[1] as Target, requests * rounds);
    await keepUp(targets[2] as Target, rate, seconds);
  } finally {
    agent.destroy();
    await Promise.all([edge.stop(), passThrough.stop()]);
    stub.stdin.end();
  }
}

/** A plan that no request of the bench runs into. */
const plans = {
  bench: {
    depth: { min: "25%", max: "100%", default: "80%" },
    price_nano_usd_per_layer_token: 10,
    requests_per_minute: 100_000,
    concurrency: 10_000,
    monthly_budget_micro_usd: 1_000_000_000_000,
    priority: 5,
    max_tokens: 64,
  },
};

async function createKey(url: string): Promise<string> {
  const response = await fetch(`${url}/admin/keys`, {
    method: "POST",
    headers: { authorization: `Bearer ${ADMIN}`, "content-type": "application/json" },
    body: JSON.stringify({ tenant: "bench", plan: "bench" }),
  });
  if (!response.ok) throw new Error(`no key: ${response.status} ${await response.text()}`);
  return ((await response.json()) as { key: string }).key;
}

async function latency(targets: readonly Target[], requests: number, rounds: number): Promise<void> {
  const samples = targets.map((): number[] => []);
  const cpu = targets.map(() => 0);
  for (const target of targets) for (let i = 0; i < WARM_UP; i++) await ask(target);
  for (let round = 0; round < rounds; round++) {
    for (const [i, target] of targets.entries()) {
      const before = (await target.worker?.cpuSeconds()) ?? 0;
      for (let n = 0; n < requests; n++) samples[i]?.push(await ask(target));
      cpu[i] = (cpu[i] ?? 0) + ((await target.worker?.cpuSeconds()) ?? 0) - before;
    }
  }
  const [base = 0, base99 = 0] = [percentile(samples[0] ?? [], 0.5), percentile(samples[0] ?? [], 0.99)];
  const rows = targets.map(({ name, worker }, i) => {
    const own = samples[i] ?? [];
    const [p50, p99] = [percentile(own, 0.5), percentile(own, 0.99)];
    const perRequest = worker ? ((1000 * (cpu[i] ?? 0)) / own.length).toFixed(2) : "";
    return [name, p50.toFixed(2), p99.toFixed(2), (p50 - base).toFixed(2), (p99 - base99).toFixed(2), perRequest];
  });
  console.log(`one request at a time, ${rounds} rounds of ${requests}, milliseconds`);
  console.log(table(["", "p50", "p99", "added p50", "added p99", "CPU per request"], rows));
}

/** CPU time of the worker's own isolate: keys, policy, accounting and passing on, without the local stand-ins of KV and storage. */
async function isolateTime(target: Target, passThrough: Target, requests: number): Promise<void> {
  const perRequest = async (of: Target): Promise<number> => {
    const work = async () => {
      for (let n = 0; n < requests; n++) await ask(of);
    };
    return (await isolateMilliseconds(of.worker?.inspector ?? "", WORKER, work)) / requests;
  };
  const [own, passing] = [await perRequest(target), await perRequest(passThrough)];
  console.log(
    `CPU of the worker's own isolate: ${own.toFixed(3)} ms per request, ${passing.toFixed(3)} for one that only passes on: ` +
      `keys, policy and accounting take ${(own - passing).toFixed(3)} ms\n`,
  );
}

/** An open loop: requests are sent when they are due, whatever became of the others. */
async function keepUp(target: Target, rate: number, seconds: number): Promise<void> {
  const times: number[] = [];
  const failures = new Map<string, number>();
  const running: Promise<void>[] = [];
  const started = performance.now();
  const before = (await target.worker?.cpuSeconds()) ?? 0;
  for (let sent = 0; sent < rate * seconds; ) {
    const due = Math.floor(((performance.now() - started) / 1000) * rate);
    for (; sent < Math.min(due, rate * seconds); sent++) {
      const dueAt = started + (1000 * sent) / rate;
      running.push(
        ask(target).then(
          () => void times.push(performance.now() - dueAt),
          (error: Error) => void failures.set(error.message, (failures.get(error.message) ?? 0) + 1),
        ),
      );
    }
    await new Promise((resolve) => setTimeout(resolve, 1));
  }
  await Promise.all(running);
  const took = (performance.now() - started) / 1000;
  const cpu = (((await target.worker?.cpuSeconds()) ?? 0) - before) / took;
  const failed = [...failures].map(([message, count]) => `${count} × ${message}`).join(", ");
  console.log(
    `${rate} requests/s for ${seconds} s on one process: ${times.length} ok${failed === "" ? ", no error" : `, failed: ${failed}`}; ` +
      `p50 ${percentile(times, 0.5).toFixed(1)} ms, p99 ${percentile(times, 0.99).toFixed(1)} ms, ${cpu.toFixed(2)} cores`,
  );
}

/** Milliseconds until the whole answer is there. @throws Error that names the status when it is not 200. */
function ask({ url, headers }: Target): Promise<number> {
  const started = performance.now();
  const { promise, resolve, reject } = Promise.withResolvers<number>();
  const options = { agent, method: "POST", headers: { ...headers, "content-type": "application/json" } };
  request(`${url}/v1/completions`, options, (response) => {
    response.resume().on("end", () => {
      if (response.statusCode === 200) resolve(performance.now() - started);
      else reject(new Error(`status ${response.statusCode}`));
    });
  })
    .on("error", reject)
    .end(BODY);
  return promise;
}

function percentile(values: readonly number[], share: number): number {
  const sorted = values.toSorted((x, y) => x - y);
  return sorted[Math.min(sorted.length - 1, Math.floor(share * sorted.length))] ?? Number.NaN;
}
