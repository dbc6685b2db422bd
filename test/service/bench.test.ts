import { spawn } from "node:child_process";
import { once } from "node:events";
import { mkdtemp, readFile, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { BenchReport } from "@fathom/gpu-service/load/report.ts";
import { RequestRecord } from "@fathom/gpu-service/load/request-record.ts";
import { stubServer } from "@fathom/gpu-service/load/testing/stub-server.ts";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { fathom, SECRET, type ServiceProcess, serviceProcess } from "./helpers/service-process.ts";
import { type TinyCheckpoint, tinyCheckpoint } from "./helpers/tiny-checkpoint.ts";

const MAIN = fileURLToPath(new URL("../../gpu-service/src/cli/main.ts", import.meta.url));

let checkpoint: TinyCheckpoint;
let service: ServiceProcess;
let dir: string;

beforeAll(async () => {
  checkpoint = await tinyCheckpoint();
  service = await serviceProcess(checkpoint.dir, ["--threads", "1"]);
  dir = await mkdtemp(join(tmpdir(), "fathom-bench-"));
});

afterAll(async () => {
  await service?.stop();
  await checkpoint?.remove();
  if (dir) await rm(dir, { recursive: true });
});

const bench = (...args: string[]) => fathom(["bench", "--key-env", "KEY", ...args], { KEY: SECRET });

test("bench measures the service at a mix of depths and writes report, records and plot", async () => {
  const data = join(dir, "prompts.jsonl");
  await writeFile(data, ["Hello", "What is a whale?", "Why?"].map((text) => `${JSON.stringify({ text })}\n`).join(""));
  const [json, raw, plot] = ["report.json", "raw.jsonl", "plot.svg"].map((name) => join(dir, name));
  const { code, stdout, stderr } = await bench(
    ...["--url", service.url, "--data", data, "--requests", "8", "--rate", "50", "--max-tokens", "6"],
    ...[
      "--depth-mix",
      "2:0.5,8:0.5",
      "--slo",
      "ttft:60000",
      "--json",
      json ?? "",
      "--raw",
      raw ?? "",
      "--plot",
      plot ?? "",
    ],
  );
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
  expect(stdout).toContain(`tiny at ${service.url}`);
  expect(stdout).toContain("open loop, 50 requests/s, Poisson");
  expect(stdout).toMatch(/^TTFT .* 8$/m);
  const report = BenchReport.parse(JSON.parse(await readFile(json ?? "", "utf8")));
  expect(report).toMatchObject({ requests: { sent: 8, ok: 8 }, goodput: { met: 8 }, errors: [], interrupted: false });
  const records = (await readFile(raw ?? "", "utf8")).trimEnd().split("\n");
  const parsed = records.map((line) => RequestRecord.parse(JSON.parse(line)));
  expect(parsed.map(({ depth }) => depth).toSorted()).toEqual([2, 2, 2, 2, 8, 8, 8, 8]);
  for (const { depth, fathom: field } of parsed) expect(field?.depth).toBe(depth);
  const layers = parsed.reduce((sum, { fathom: field }) => sum + (field?.layers.total ?? 0), 0);
  expect(report.fathom?.layers_mean).toBeCloseTo(layers / report.tokens.output, 9);
  expect(await readFile(plot ?? "", "utf8")).toContain("</svg>");
});

test("completions are measured as well, and a URL may end with /v1", async () => {
  const { code, stdout } = await bench(
    ...["--url", `${service.url}/v1/`, "--endpoint", "completions", "--prompt", "Once", "--requests", "4"],
    ...["--concurrency", "2", "--max-tokens", "5", "--exit", "fixed"],
  );
  expect(code).toBe(0);
  expect(stdout).toContain("closed loop, 2 at a time");
  expect(stdout).toContain("4 ok, of 4");
});

test("what cannot be measured is said in one line", async () => {
  const url = ["--url", service.url];
  const some = [...url, "--prompt", "a"];
  const results = await Promise.all([
    fathom(["bench", ...some, "--model", "tiny"]),
    bench(...some, "--depth-mix", "3"),
    bench(...some, "--depth-mix", "3", "--warmup", "0", "--requests", "2"),
    bench("--url", "http://127.0.0.1:9", "--prompt", "a"),
    bench(...url),
    bench(...url, "--data", join(dir, "missing.jsonl")),
    bench(...some, "--slo", "speed:1"),
    bench(...some, "--depth-mix", "deep"),
    bench(...some, "--threshold", "0.5"),
    bench(...some, "--key-file", "x"),
    bench(...some, "--json", join(dir, "no", "report.json")),
    bench("--url", "127.0.0.1", "--prompt", "a"),
  ]);
  const expected: [number, RegExp][] = [
    [1, /the warm-up failed at .*status 401, missing_api_key/],
    [1, /the warm-up failed at .*status 400, invalid_depth: .*no exit at depth 3/],
    [1, /no request was answered/],
    [1, /127\.0\.0\.1:9\/v1\/models: /],
    [2, /give either --data FILE or --prompt TEXT/],
    [1, /missing\.jsonl: the prompts cannot be read/],
    [2, /'speed:1' is not a bound/],
    [2, /'deep' is not one of the possible values/],
    [2, /--threshold is for --exit confidence/],
    [2, /give one of --key-env and --key-file/],
    [1, /report\.json: its folder cannot be written to/],
    [2, /must be a URL/],
  ];
  for (const [i, [code, message]] of expected.entries()) {
    expect(results[i]?.stderr).toMatch(message);
    expect(results[i]?.stderr.trimEnd().split("\n")).toHaveLength(1);
    expect(results[i]?.code).toBe(code);
  }
});

test("Ctrl-C ends the run early, and what was measured is printed", async () => {
  const server = await stubServer((_, index) => (index < 3 ? { texts: [[1, "x"]] } : "never answer"));
  onTestFinished(server.close);
  const child = spawn(process.execPath, [MAIN, "bench", "--url", server.url, "--prompt", "a", "--warmup", "0"]);
  let output = "";
  for (const stream of [child.stdout, child.stderr]) {
    stream.setEncoding("utf8").on("data", (text: string) => {
      output += text;
    });
  }
  await expect.poll(() => server.requests.length, { timeout: 30_000 }).toBe(4);
  child.kill("SIGINT");
  const [code] = await once(child, "close");
  expect(code).toBe(130);
  expect(output).toContain("3 ok, 1 cut by the interruption, of 100");
  expect(output).toContain("fathom: interrupted; the figures are of what had ended until then");
});
