import { createServer } from "node:http";
import type { AddressInfo } from "node:net";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { type ProcessOptions, type ServiceProcess, serviceProcess } from "../service/helpers/service-process.ts";
import { type TinyCheckpoint, tinyCheckpoint } from "../service/helpers/tiny-checkpoint.ts";
import {
  type EdgeLog,
  type FaultEdge,
  FIRST_BYTE_MS,
  faultEdge,
  readStream,
  refusal,
  type Tenant,
  until,
} from "./helpers/fault-edge.ts";
import { type FaultProxy, faultProxy } from "./helpers/fault-proxy.ts";

/** Layers of the checkpoint: the depth at which every request here runs. */
const LAYERS = 8;
/** A service on the tiny checkpoint answers so fast that a fault may come too late for the middle of its stream. */
const ATTEMPTS = 8;

let checkpoint: TinyCheckpoint;

beforeAll(async () => {
  checkpoint = await tinyCheckpoint();
});

afterAll(async () => {
  await checkpoint?.remove();
});

async function service(args: readonly string[] = [], options: ProcessOptions = {}): Promise<ServiceProcess> {
  const started = await serviceProcess(checkpoint.dir, ["--threads", "1", ...args], options);
  onTestFinished(() => started.stop());
  return started;
}

async function edgeFor(upstreams: readonly string[], variables: Record<string, string> = {}): Promise<FaultEdge> {
  const edge = await faultEdge({ UPSTREAMS: upstreams.join(","), ...variables });
  onTestFinished(() => edge.stop());
  return edge;
}

async function proxyFor({ url }: ServiceProcess): Promise<FaultProxy> {
  const proxy = await faultProxy(url);
  onTestFinished(() => proxy.stop());
  return proxy;
}

/** What a stream came to that ended with an error event. */
async function expectCut(
  edge: FaultEdge,
  tenant: Tenant,
  data: readonly string[],
  id: string,
  how: "service" | "timeout",
) {
  const code = how === "service" ? "upstream_failed" : "timeout";
  expect(JSON.parse(data.at(-1) ?? "")).toMatchObject({ error: { code } });
  const line = await edge.logged(({ requestId, cut }) => requestId === id && cut !== undefined);
  expect(line).toMatchObject({ status: 200, cut: how });
  const tokens = data
    .slice(0, -1)
    .flatMap((text) => (JSON.parse(text) as { choices: { layers_used?: number[] }[] }).choices[0]?.layers_used ?? []);
  expect(tokens.length).toBeGreaterThan(0);
  const charged = await tenant.spent();
  expect(charged).toBe(line.microUsd);
  // The prompt, estimated, and what was delivered.
  const prompt = charged - tokens.length * LAYERS;
  expect(prompt).toBeGreaterThan(0);
  expect(prompt % LAYERS).toBe(0);
  expect(prompt).toBeLessThan(40 * LAYERS);
}

const idOf = (response: Response): string => response.headers.get("x-request-id") ?? "";
const failuresOf = (edge: FaultEdge, id: string): EdgeLog[] =>
  edge.log.filter(({ requestId, failed }) => requestId === id && failed !== undefined);

test("killed with -9 in mid-stream: an error event; charged is what was delivered", async () => {
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    const one = await service();
    const edge = await edgeFor([one.url]);
    const tenant = await edge.newTenant();
    const response = await edge.chat(tenant, { stream: true });
    const data = await readStream(response, () => one.signal("SIGKILL"));
    if (data.at(-1) === "[DONE]") continue;
    await expectCut(edge, tenant, data, idOf(response), "service");
    const next = await edge.newTenant();
    expect(await refusal(await edge.chat(next))).toEqual({ status: 503, code: "upstream_unavailable" });
    expect(await next.spent()).toBe(0);
    return;
  }
  expect.unreachable("every stream was over before its service was killed");
});

test("paused with SIGSTOP in mid-stream: cut off when the time is up; charged is what was delivered", async () => {
  const one = await service();
  const edge = await edgeFor([one.url]);
  for (let attempt = 1; attempt <= ATTEMPTS; attempt++) {
    const tenant = await edge.newTenant();
    const response = await edge.chat(tenant, { stream: true });
    const data = await readStream(response, () => one.signal("SIGSTOP"));
    one.signal("SIGCONT");
    if (data.at(-1) === "[DONE]") continue;
    await expectCut(edge, tenant, data, idOf(response), "timeout");
    return;
  }
  expect.unreachable("every stream was over before its service was paused");
});

test("paused with SIGSTOP before it begins: another service answers; then it is out until it goes on", async () => {
  const [paused, well] = [await service(), await service()];
  const edge = await edgeFor([paused.url, well.url]);
  const tenant = await edge.newTenant();
  await (await edge.chat(tenant)).text();
  paused.signal("SIGSTOP");
  let failedOver = 0;
  for (let i = 0; i < 6; i++) {
    const response = await edge.chat(tenant, { stream: true, max_tokens: 5 });
    expect((await readStream(response)).at(-1)).toBe("[DONE]");
    const failures = failuresOf(edge, idOf(response));
    for (const line of failures) {
      expect(line).toMatchObject({ service: paused.url, failed: `no first byte within ${FIRST_BYTE_MS} ms` });
    }
    failedOver += failures.length;
  }
  await edge.logged(({ service: url, unavailable }) => url === paused.url && unavailable !== undefined);
  // The view is at most a second old, and a probe waits a second.
  expect(failedOver).toBeLessThanOrEqual(3);
  paused.signal("SIGCONT");
});

test("a slow first byte: 504 and no charge, or another service's answer, charged once", async () => {
  const [one, other] = [await service(), await service()];
  const slow = await proxyFor(one);
  slow.fault = { kind: "slow", ms: 2 * FIRST_BYTE_MS };
  const alone = await edgeFor([slow.url]);
  const refused = await alone.newTenant();
  const late = await alone.chat(refused, { stream: true });
  expect(await refusal(late)).toEqual({ status: 504, code: "timeout" });
  expect(await refused.spent()).toBe(0);
  expect(failuresOf(alone, idOf(late))).toMatchObject([{ failed: `no first byte within ${FIRST_BYTE_MS} ms` }]);

  const second = await proxyFor(other);
  const pair = await edgeFor([slow.url, second.url]);
  for (let i = 0; i < 4; i++) {
    const tenant = await pair.newTenant();
    const response = await pair.chat(tenant, { stream: true, max_tokens: 5 });
    const data = await readStream(response);
    expect(data.at(-1)).toBe("[DONE]");
    const { fathom } = JSON.parse(data.at(-2) ?? "") as { fathom: { cost: { micro_usd: number } } };
    expect(await tenant.spent()).toBe(fathom.cost.micro_usd);
  }
});

test.each([
  ["a page", 200, "text/html", "<h1>It works!</h1>", "an answer of type 'text/html' instead of 'application/json'"],
  ["JSON of something else", 200, "application/json", '{"object": "chat.completion"}', undefined],
  ["half an answer", 200, "application/json", '{"object": "chat.comple', undefined],
  ["an error of its own", 500, "text/plain", "Oops", "status 500, code none"],
])("a garbage answer (%s): 502, and no charge", async (_, status, type, text, failed) => {
  const proxy = await proxyFor(await service());
  const edge = await edgeFor([proxy.url]);
  const tenant = await edge.newTenant();
  proxy.fault = { kind: "garbage", status, type, text };
  const response = await edge.chat(tenant);
  expect(await refusal(response)).toEqual({ status: 502, code: "upstream_failed" });
  expect(await tenant.spent()).toBe(0);
  expect(failuresOf(edge, idOf(response)).map((line) => line.failed)).toEqual(failed === undefined ? [] : [failed]);
  await edge.logged(
    ({ requestId, error, status }) => requestId === idOf(response) && error !== undefined && status === 502,
  );
});

test("connections refused: 503 at once and no charge; with another service nobody notices", async () => {
  const [gone, well] = [await service(), await service()];
  const [alone, pair] = [await edgeFor([gone.url]), await edgeFor([gone.url, well.url])];
  const [refused, served] = [await alone.newTenant(), await pair.newTenant()];
  await (await alone.chat(refused, { max_tokens: 1 })).text();
  await (await pair.chat(served, { max_tokens: 1 })).text();
  const [before, paid] = [await refused.spent(), await served.spent()];
  gone.signal("SIGKILL");
  await gone.exited;
  // Still in the edges' views.
  const response = await alone.chat(refused);
  expect(response.headers.get("retry-after")).toBe("2");
  expect(await refusal(response)).toEqual({ status: 503, code: "upstream_unavailable" });
  expect(await refused.spent()).toBe(before);
  const answers = await Promise.all(Array.from({ length: 10 }, () => pair.chat(served, { max_tokens: 1 })));
  expect(answers.map(({ status }) => status)).toEqual(Array.from({ length: 10 }, () => 200));
  const costs = await Promise.all(
    answers.map(async (answer) => ((await answer.json()) as { fathom: { cost: { micro_usd: number } } }).fathom.cost),
  );
  expect(await served.spent()).toBe(paid + costs.reduce((sum, cost) => sum + cost.micro_usd, 0));
  // Services are probed when somebody asks.
  await until(async () => {
    await (await pair.chat(served, { max_tokens: 1 })).text();
    return pair.log.find(({ service: url, unavailable }) => url === gone.url && unavailable !== undefined);
  }, "the edge's word that the service is gone");
});

test.each([
  ["ahead", 300_000, "expired"],
  ["behind", -300_000, "not valid yet"],
])("a service whose clock is 5 minutes %s is not used, and both logs say why", async (_, ms, words) => {
  const nodeArgs = ["--import", fileURLToPath(new URL("helpers/shift-clock.ts", import.meta.url))];
  const wrong = await service([], { nodeArgs, env: { FATHOM_TEST_CLOCK_MS: String(ms) } });
  const edge = await edgeFor([wrong.url]);
  const tenant = await edge.newTenant();
  expect(await refusal(await edge.chat(tenant))).toEqual({ status: 503, code: "upstream_unavailable" });
  expect(await tenant.spent()).toBe(0);
  expect(await wrong.logged(({ msg }) => msg === "not authorised")).toMatchObject({
    reason: expect.stringContaining(words),
  });
  const line = await edge.logged(({ unavailable }) => unavailable !== undefined);
  expect(line.unavailable).toContain(words);

  const well = await service();
  const pair = await edgeFor([wrong.url, well.url]);
  const served = await pair.newTenant();
  const answers = await Promise.all(Array.from({ length: 5 }, () => pair.chat(served, { max_tokens: 1 })));
  expect(answers.map(({ status }) => status)).toEqual([200, 200, 200, 200, 200]);
});

test("every service gone: 503 with retry-after, no charge, and answers again when one is back", async () => {
  const port = await freePort();
  const services = [await service(["--port", String(port)]), await service()];
  const edge = await edgeFor(services.map(({ url }) => url));
  const tenant = await edge.newTenant();
  await (await edge.chat(tenant, { max_tokens: 1 })).text();
  const before = await tenant.spent();
  for (const one of services) one.signal("SIGKILL");
  await Promise.all(services.map(({ exited }) => exited));
  for (let i = 0; i < 12; i++) {
    const response = await edge.chat(tenant);
    expect(Number(response.headers.get("retry-after"))).toBeGreaterThan(0);
    expect(await refusal(response)).toEqual({ status: 503, code: "upstream_unavailable" });
  }
  expect(await tenant.spent()).toBe(before);
  await service(["--port", String(port)]);
  const status = await until(async () => {
    const response = await edge.chat(tenant, { max_tokens: 1 });
    await response.text();
    return response.status === 200 ? response.status : undefined;
  }, "an answer");
  expect(status).toBe(200);
});

test("services that register: one leaves with SIGTERM and nobody notices; one is killed and is out by its silence", async () => {
  const edge = await edgeFor([]);
  const register = async (): Promise<ServiceProcess> => {
    const port = String(await freePort());
    return await service(["--port", port, "--register", edge.url, "--public-url", `http://127.0.0.1:${port}`]);
  };
  const [leaving, killed] = [await register(), await register()];
  await Promise.all([leaving, killed].map((one) => one.logged(({ event }) => event === "registered")));
  const tenant = await edge.newTenant();
  const ask = async (): Promise<number> => {
    const response = await edge.chat(tenant, { max_tokens: 1 });
    await response.text();
    return response.status;
  };
  await until(async () => ((await ask()) === 200 ? true : undefined), "an answer");
  leaving.signal("SIGTERM");
  const during = await Promise.all(Array.from({ length: 20 }, ask));
  expect(new Set(during)).toEqual(new Set([200]));
  expect(await leaving.exited).toEqual({ code: 0, signal: null });
  killed.signal("SIGKILL");
  const at = Date.now();
  await edge.logged(({ status }) => status === 200);
  await until(async () => ((await ask()) === 503 ? true : undefined), "a refusal");
  // Nobody is asked in vain once the silence is noticed: 2 s, and the second that a view may be old.
  await new Promise((resolve) => setTimeout(resolve, Math.max(0, at + 3100 - Date.now())));
  const count = edge.log.filter(({ failed }) => failed !== undefined).length;
  expect(await ask()).toBe(503);
  expect(edge.log.filter(({ failed }) => failed !== undefined)).toHaveLength(count);
});

test("a service with a wrong clock cannot register, and its log says why", async () => {
  const edge = await edgeFor([]);
  const nodeArgs = ["--import", fileURLToPath(new URL("helpers/shift-clock.ts", import.meta.url))];
  const args = ["--register", edge.url, "--public-url", "http://127.0.0.1:9"];
  const wrong = await service(args, { nodeArgs, env: { FATHOM_TEST_CLOCK_MS: "300000" } });
  const line = await wrong.logged(({ event }) => event === "not registered");
  expect(line.problem).toMatch(/not valid yet.* (299|300) s in the future/);
});

/** A port on which nothing listens. */
async function freePort(): Promise<number> {
  const server = createServer();
  await new Promise<void>((resolve) => server.listen(0, "127.0.0.1", resolve));
  const { port } = server.address() as AddressInfo;
  await new Promise((resolve) => server.close(resolve));
  return port;
}
