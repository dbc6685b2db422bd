import { randomInt } from "node:crypto";
import { SECRET, type ServiceProcess, serviceProcess } from "../service/helpers/service-process.ts";

export interface SoakOptions {
  dir: string;
  model: string;
  exits: readonly number[];
  seconds: number;
  /** Clients at the same time: more than the service runs and queues. */
  clients: number;
  args?: readonly string[];
  onProgress?: (counts: Readonly<Record<string, number>>) => void;
}

export interface SoakResult {
  /** What became of the requests. */
  counts: Record<string, number>;
  /** Accepted streams that ended otherwise than by one terminal event. */
  violations: string[];
  /** Gauges once everything has ended. */
  left: Record<string, number>;
  /** Resident memory in MB: after a tenth of the time, after a half and at the end. */
  memory: [number, number, number];
}

/** Random arrivals, departures, slow readers and malformed requests at overload, against a service in a process of its own. */
export async function soak(options: SoakOptions): Promise<SoakResult> {
  const service = await serviceProcess(options.dir, [
    ...["--max-concurrent", "6", "--max-waiting", "8", "--kv-memory", "64", ...(options.args ?? [])],
  ]);
  const counts: Record<string, number> = {};
  const violations: string[] = [];
  const count = (what: string) => {
    counts[what] = (counts[what] ?? 0) + 1;
  };
  const ends = performance.now() + options.seconds * 1000;
  const readings: number[] = [];
  const sampler = setInterval(async () => {
    readings.push((await gauges(service)).process_resident_memory_bytes ?? 0);
    options.onProgress?.(counts);
  }, 1000);
  const client = async (): Promise<void> => {
    while (performance.now() < ends) {
      const violation = await oneRequest(service, options, count);
      if (violation !== undefined) violations.push(violation);
      await sleep(randomInt(0, 30));
    }
  };
  await Promise.all(Array.from({ length: options.clients }, client));
  clearInterval(sampler);
  const left = await settled(service);
  const memory = [0.1, 0.5, 1].map(
    (share) => (readings[Math.max(0, Math.ceil(share * readings.length) - 1)] ?? 0) / 1e6,
  );
  const fatal = service.log.filter((line) => Number(line.level) >= 50);
  violations.push(...fatal.map((line) => `the service logged ${JSON.stringify(line).slice(0, 300)}`));
  service.signal("SIGTERM");
  const { code } = await service.exited;
  if (code !== 0) violations.push(`the service ended with ${code}`);
  return { counts, violations, left, memory: memory as [number, number, number] };
}

/** Waits until nothing runs any more, and returns the gauges. */
async function settled(service: ServiceProcess): Promise<Record<string, number>> {
  for (let tries = 0; ; tries++) {
    const now = await gauges(service);
    const live = (now["vllm:num_requests_running"] ?? 0) + (now["vllm:num_requests_waiting"] ?? 0);
    if (live === 0 || tries === 100) {
      return {
        running: now["vllm:num_requests_running"] ?? -1,
        waiting: now["vllm:num_requests_waiting"] ?? -1,
        paused: now.fathom_requests_paused ?? -1,
        pendingRows: now.fathom_pending_rows ?? -1,
        kvBytesOfRequests: now['fathom_kv_bytes{kind="requests"}'] ?? -1,
      };
    }
    await sleep(100);
  }
}

/** The samples of /metrics, without the label that names the model. */
async function gauges(service: ServiceProcess): Promise<Record<string, number>> {
  const text = await (await fetch(`${service.url}/metrics`)).text();
  const samples: Record<string, number> = {};
  for (const line of text.split("\n")) {
    const match = /^([^#\s][^\s]*) (\S+)$/.exec(line);
    if (match?.[1]) samples[match[1].replace(/model_name="[^"]*",?/, "").replace("{}", "")] = Number(match[2]);
  }
  return samples;
}

const MALFORMED = [
  '{"model":',
  "[]",
  '{"model":"x","messages":[]}',
  '{"messages":"hi"}',
  "\u0000\u0001",
  '{"prompt":[-1]}',
];

/** @returns what went wrong, if anything did */
async function oneRequest(
  service: ServiceProcess,
  { model, exits }: SoakOptions,
  count: (what: string) => void,
): Promise<string | undefined> {
  const headers = { authorization: `Bearer ${SECRET}`, "content-type": "application/json" };
  const post = (body: string, signal?: AbortSignal) =>
    fetch(`${service.url}/v1/completions`, { method: "POST", headers, body, ...(signal ? { signal } : {}) });
  const dice = randomInt(0, 100);
  if (dice < 10) {
    const { status } = await post(MALFORMED[randomInt(0, MALFORMED.length)] ?? "");
    count(`malformed: ${status}`);
    return status >= 400 && status < 500 ? undefined : `a malformed request was answered with ${status}`;
  }
  const stream = dice < 85;
  const abort = new AbortController();
  const leaves = dice >= 40 && dice < 60;
  const slow = dice >= 60 && dice < 70;
  if (leaves) setTimeout(() => abort.abort(), randomInt(0, 400));
  try {
    const response = await post(JSON.stringify(randomBody(model, exits, stream)), abort.signal);
    if (response.status === 429) {
      count("refused: 429");
      await response.arrayBuffer();
      return response.headers.get("retry-after") === null ? "a refusal without retry-after" : undefined;
    }
    if (response.status !== 200) {
      const text = await response.text();
      count(`status ${response.status}`);
      return `a good request was answered with ${response.status}: ${text.slice(0, 200)}`;
    }
    if (!stream) {
      await response.json();
      count("whole answers");
      return undefined;
    }
    const text = await readAll(response, slow);
    const done = text.split("data: [DONE]").length - 1;
    const failed = text.split('data: {"error"').length - 1;
    count(done === 1 ? (slow ? "slow streams" : "streams") : "streams that failed");
    return done + failed === 1 ? undefined : `a stream had ${done} [DONE] and ${failed} errors`;
  } catch (error) {
    if (!abort.signal.aborted) throw error;
    count("left by the client");
    return undefined;
  }
}

function randomBody(model: string, exits: readonly number[], stream: boolean): object {
  const exit = (["fixed", "fixed", "confidence", "speculative"] as const)[randomInt(0, 4)];
  return {
    model,
    prompt: Array.from({ length: randomInt(1, 90) }, (_, i) => (i < 40 ? 10 + i : randomInt(3, 300))),
    max_tokens: randomInt(1, 60),
    temperature: randomInt(0, 2),
    stream,
    fathom: { depth: exits[randomInt(0, exits.length)], exit, ...(exit === "confidence" ? { threshold: 0.5 } : {}) },
  };
}

async function readAll(response: Response, slow: boolean): Promise<string> {
  const decoder = new TextDecoder();
  let text = "";
  for await (const bytes of response.body ?? []) {
    text += decoder.decode(bytes, { stream: true });
    if (slow) await sleep(randomInt(0, 40));
  }
  return text;
}

function sleep(ms: number): Promise<void> {
  return new Promise((resolve) => setTimeout(resolve, ms));
}
