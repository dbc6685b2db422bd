import { spawn } from "node:child_process";
import { once } from "node:events";
import { appendFile, mkdtemp, readFile, rm, truncate, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { afterAll, beforeAll, expect, onTestFinished, test } from "vitest";
import { z } from "zod";
import { fathom, SECRET, serviceProcess } from "./helpers/service-process.ts";
import { TINY_EXITS, type TinyCheckpoint, tinyCheckpoint } from "./helpers/tiny-checkpoint.ts";

const REFERENCE = new URL("../fixtures/tiny-llama/tied/reference.json", import.meta.url);
const MAIN = fileURLToPath(new URL("../../gpu-service/src/cli/main.ts", import.meta.url));
const ENV = { FATHOM_SERVICE_SECRET: SECRET };

let checkpoint: TinyCheckpoint;

beforeAll(async () => {
  checkpoint = await tinyCheckpoint();
});

afterAll(() => checkpoint?.remove());

async function start(...args: string[]) {
  const service = await serviceProcess(checkpoint.dir, ["--threads", "1", ...args]);
  onTestFinished(() => service.stop());
  return service;
}

function chat(url: string, body: object = {}): Promise<Response> {
  return fetch(`${url}/v1/chat/completions`, {
    method: "POST",
    headers: { "content-type": "application/json", authorization: `Bearer ${SECRET}` },
    body: JSON.stringify({ model: "tiny", messages: [{ role: "user", content: "Hi" }], temperature: 0, ...body }),
  });
}

/** Several long streams, so that the service is still busy with them when the test goes on. */
function longStreams(url: string): Promise<Response[]> {
  return Promise.all(Array.from({ length: 6 }, () => chat(url, { max_tokens: 190, stream: true })));
}

test("serve says where it is ready, to people and to programs", async () => {
  const service = await start();
  await expect.poll(() => service.banner).toContain(`Fathom serves tiny at ${service.url} (exits 2, 4, 6, 8)`);
  expect(await service.logged((line) => line.event === "ready")).toMatchObject({
    url: service.url,
    model: "tiny",
    exits: TINY_EXITS,
    provider: "cpu",
    threads: 1,
  });
  expect((await fetch(`${service.url}/readyz`)).status).toBe(200);
});

test.each(["SIGTERM", "SIGINT"] as const)(
  "%s lets running answers finish, refuses new ones, and exits with 0",
  async (name) => {
    const service = await start();
    const streams = await longStreams(service.url);
    service.signal(name);
    await service.logged((line) => line.event === "draining");
    const refused = await chat(service.url);
    expect(refused.status).toBe(503);
    expect(await refused.json()).toMatchObject({ error: { code: "draining" } });
    expect((await fetch(`${service.url}/readyz`)).status).toBe(503);
    for (const stream of streams) expect(await stream.text()).toMatch(/data: \[DONE\]\n\n$/);
    expect(await service.exited).toEqual({ code: 0, signal: null });
  },
);

test("answers that outlast the drain are cut with an error, and the exit code is still 0", async () => {
  const service = await start("--drain-timeout", "0");
  const streams = await longStreams(service.url);
  service.signal("SIGTERM");
  const texts = await Promise.all(streams.map((stream) => stream.text()));
  const cut = texts.filter((text) => !text.includes("[DONE]"));
  expect(cut.length).toBeGreaterThan(0);
  for (const text of cut) expect(text).toContain('"code":"draining"');
  expect(await service.exited).toEqual({ code: 0, signal: null });
});

test("a second signal ends the service at once", async () => {
  const service = await start();
  const streams = await longStreams(service.url);
  service.signal("SIGTERM");
  await service.logged((line) => line.event === "draining");
  service.signal("SIGTERM");
  expect(await service.exited).toEqual({ code: null, signal: "SIGTERM" });
  await Promise.allSettled(streams.map((stream) => stream.text()));
});

test("a signal while the model loads ends the service in good order", async () => {
  const child = spawn(process.execPath, [MAIN, "serve", checkpoint.dir, "--port", "0", "--insecure"]);
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    if (stderr === "") child.kill("SIGTERM");
    stderr += text;
  });
  const [code] = await once(child, "close");
  expect(stderr).toContain('"event":"stopped"');
  expect(code).toBe(0);
});

test("a port in use is said so in one line", async () => {
  const { url } = await start();
  const { port } = new URL(url);
  const { code, stderr, stdout } = await fathom(["serve", checkpoint.dir, "--port", port], ENV);
  expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
  expect(stderr).toBe(`fathom: port ${port} on 127.0.0.1 is in use; choose another with --port\n`);
});

test("without a key the service starts on loopback only, and only when told so", async () => {
  const open = await start("--insecure");
  expect((await fetch(`${open.url}/v1/models`)).status).toBe(200);
  const none = { FATHOM_SERVICE_SECRET: "" };
  const refusals = await Promise.all([
    fathom(["serve", checkpoint.dir, "--port", "0"], none),
    fathom(["serve", checkpoint.dir, "--port", "0", "--insecure", "--host", "0.0.0.0"], none),
    fathom(["serve", checkpoint.dir, "--port", "0"], { FATHOM_SERVICE_SECRET: "short" }),
  ]);
  expect(refusals.map(({ code }) => code)).toEqual([2, 2, 2]);
  expect(refusals.map(({ stderr }) => stderr)).toEqual([
    expect.stringMatching(/^fathom: set FATHOM_SERVICE_SECRET.*\n$/),
    expect.stringMatching(/^fathom: --insecure is allowed only on a loopback host.*\n$/),
    expect.stringMatching(/^fathom: the key cannot be used.*16.*\n$/),
  ]);
});

test("the key may come from a file", async () => {
  const dir = await mkdtemp(join(tmpdir(), "fathom-secret-"));
  onTestFinished(() => rm(dir, { recursive: true }));
  const file = join(dir, "key");
  await writeFile(file, "another-key-from-a-file\n");
  const { url } = await start("--secret-file", file);
  const status = async (key: string): Promise<number> =>
    (await fetch(`${url}/v1/models`, { headers: { authorization: `Bearer ${key}` } })).status;
  expect([await status("another-key-from-a-file"), await status(SECRET)]).toEqual([200, 401]);
  const missing = await fathom(["serve", checkpoint.dir, "--port", "0", "--secret-file", join(dir, "no")], ENV);
  expect(missing.code).toBe(1);
  expect(missing.stderr).toMatch(/^fathom: .*no: the key cannot be read.*\n$/);
});

async function damaged(file: string, damage: (path: string) => Promise<void>): Promise<string> {
  const { dir, remove } = await tinyCheckpoint();
  onTestFinished(remove);
  await damage(join(dir, file));
  return dir;
}

test.each([
  ["missing", "tokenizer.json", (path: string) => rm(path), /tokenizer\.json/],
  ["truncated", "weights/00001.bin", (path: string) => truncate(path, 1000), /weights\/00001\.bin.*truncated/],
  ["altered", "tokenizer_config.json", (path: string) => appendFile(path, " "), /tokenizer_config\.json/],
  ["not JSON", "manifest.json", (path: string) => writeFile(path, "{"), /manifest\.json.*not JSON/],
])("a checkpoint with a file %s stops the load with one line that names it", async (_, file, damage, message) => {
  const dir = await damaged(file, damage);
  for (const args of [
    ["serve", dir, "--port", "0"],
    ["generate", dir, "Hi"],
    ["probe", dir, "--tokens", "5"],
  ]) {
    const { code, stderr, stdout } = await fathom(args, ENV);
    expect({ code, stdout }).toEqual({ code: 1, stdout: "" });
    const lines = stderr.split("\n").filter((line) => line !== "" && !line.startsWith("{"));
    expect(lines).toEqual([expect.stringMatching(/^fathom: /)]);
    expect(lines[0]).toMatch(message);
    expect(stderr).not.toMatch(/\n\s+at /);
  }
});

test("generate writes the text of the service's answer, and figures beside it", async () => {
  const { url } = await start();
  const response = z
    .object({ choices: z.array(z.object({ message: z.object({ content: z.string() }) })) })
    .parse(await (await chat(url, { max_tokens: 20 })).json());
  const text = response.choices[0]?.message.content ?? "";
  const plain = await fathom(["generate", checkpoint.dir, "Hi", "--max-tokens", "20"]);
  expect(plain).toMatchObject({ code: 0, stdout: `${text}\n` });
  expect(plain.stderr).toMatch(/depth 8, fixed: 20 tokens \(length\), 8\.0 layers per token.* ms.* tokens\/s/);
  const json = await fathom(["generate", checkpoint.dir, "Hi", "--max-tokens", "20", "--json"]);
  expect(JSON.parse(json.stdout)).toMatchObject({ text, finish_reason: "length", usage: { completion_tokens: 20 } });
  expect(json.stderr).toBe("");
});

test("generate takes depth, sampling, stop strings and raw prompts", async () => {
  const run = async (
    ...args: string[]
  ): Promise<{ text: string; fathom: { depth: number }; usage: { prompt_tokens: number } }> =>
    JSON.parse((await fathom(["generate", checkpoint.dir, "the cat", "--max-tokens", "30", "--json", ...args])).stdout);
  const [raw, chatted, drawn, again] = await Promise.all([
    run("--raw", "--depth", "4"),
    run(),
    run("--temperature", "1.5", "--top-p", "0.9", "--seed", "3"),
    run("--temperature", "1.5", "--top-p", "0.9", "--seed", "3"),
  ]);
  expect(raw.fathom.depth).toBe(4);
  expect(raw.usage.prompt_tokens).toBeLessThan(chatted.usage.prompt_tokens);
  expect(drawn.text).toBe(again.text);
  expect(drawn.text).not.toBe(chatted.text);
  const stop = chatted.text.slice(5, 7);
  expect((await run("--stop", "nothing like it", "--stop", stop)).text).toBe(chatted.text.split(stop)[0]);
});

test("probe prints the logits that Hugging Face computes", async () => {
  const { prompts, last_logits: expected } = z
    .object({ prompts: z.array(z.array(z.int())), last_logits: z.array(z.array(z.array(z.number()))) })
    .parse(JSON.parse(await readFile(REFERENCE, "utf8")));
  const args = ["probe", checkpoint.dir, "--tokens", (prompts[2] ?? []).join(","), "--json"];
  const { exits } = JSON.parse((await fathom(args)).stdout);
  expect(exits.map(({ depth }: { depth: number }) => depth)).toEqual(TINY_EXITS);
  for (const [e, { logits }] of exits.entries()) {
    const differences = logits.map((logit: number, i: number) =>
      Math.abs(logit - (expected[2]?.[e]?.[i] ?? Number.NaN)),
    );
    expect(Math.max(...differences)).toBeLessThan(2e-4);
  }
  const some = JSON.parse((await fathom([...args, "--depths", "4,6"])).stdout);
  expect(some).toEqual({ exits: exits.slice(1, 3) });
  const people = await fathom(["probe", checkpoint.dir, "--tokens", "5,9,12", "--depths", "2"]);
  expect(people.stdout.split("\n")[0]).toBe("depth 2");
  expect(people.stdout.trimEnd().split("\n")).toHaveLength(6);
});

const DIR = "<checkpoint>";

test.each([
  [[], "Usage: fathom"],
  [["dance"], "unknown command 'dance'"],
  [["serve"], "missing required argument 'dir'"],
  [["serve", DIR, "--dance"], "unknown option '--dance'"],
  [["serve", DIR, "--port", "-1"], "'--port <port>' argument '-1' is invalid"],
  [["serve", DIR, "--port", "http"], "'--port <port>' argument 'http' is invalid"],
  [["serve", DIR, "--threads", "0"], "'--threads <n>' argument '0' is invalid"],
  [["serve", DIR, "--exits", "8,2"], "'--exits <depths>' argument '8,2' is invalid"],
  [["serve", DIR, "--provider", "abacus"], "Allowed choices are cpu, webgpu, cuda"],
  [["serve", DIR, "--drain-timeout", "-5"], "'--drain-timeout <seconds>' argument '-5' is invalid"],
  [["serve", DIR, "--register", "ftp://edge"], "'--register <url>' argument 'ftp://edge' is invalid"],
  [["serve", DIR, "--register", "http://edge"], "--register needs --public-url"],
  [["serve", DIR, "--region", "eu"], "--public-url, --region and --pool are for --register"],
  [
    ["serve", DIR, "--insecure", "--register", "http://edge", "--public-url", "http://10.0.0.1"],
    "--register needs the key",
  ],
  [["generate", DIR], "missing required argument 'prompt'"],
  [["generate", DIR, "Hi", "--depth", "5"], "there is no exit at depth 5; exits are 2, 4, 6, 8"],
  [["generate", DIR, "Hi", "--max-tokens", "1000"], "the context holds 256 tokens"],
  [["generate", DIR, "Hi", "--temperature", "hot"], "'--temperature <t>' argument 'hot' is invalid"],
  [["generate", DIR, "Hi", "--stop", ""], "'--stop <text>' argument '' is invalid"],
  [["probe", DIR], "required option '--tokens <ids>' not specified"],
  [["probe", DIR, "--tokens", "5,x"], "'--tokens <ids>' argument '5,x' is invalid"],
  [["probe", DIR, "--tokens", "5,999"], "token 999 is not in the vocabulary of 320"],
  [["probe", DIR, "--tokens", "5", "--depths", "3"], "there is no exit at depth 3"],
])("%j is wrong usage", async (args, message) => {
  const { code, stderr } = await fathom(
    args.map((arg) => (arg === DIR ? checkpoint.dir : arg)),
    ENV,
  );
  expect(stderr).toContain(message);
  expect(code).toBe(2);
  if (args.length > 0) expect(stderr.trimEnd().split("\n")).toHaveLength(1);
});

test("every command's --help shows an example", async () => {
  const listed = (await fathom(["--help"])).stdout.split("Commands:\n")[1] ?? "";
  const commands = [...listed.matchAll(/^ {2}([a-z]+) /gm)].map(([, name]) => name ?? "").filter((n) => n !== "help");
  expect(commands).toEqual(
    expect.arrayContaining(["pull", "import", "inspect", "serve", "generate", "probe", "train"]),
  );
  for (const command of commands) {
    const { code, stdout } = await fathom([command, "--help"]);
    expect(code).toBe(0);
    expect(stdout).toMatch(new RegExp(`Example:\\n {2}\\$ fathom ${command} `));
  }
});

test("a reader that leaves early is no error", async () => {
  const child = spawn(process.execPath, [MAIN, "generate", checkpoint.dir, "Hi", "--max-tokens", "200"]);
  let stderr = "";
  child.stderr.setEncoding("utf8").on("data", (text: string) => {
    stderr += text;
  });
  await once(child.stdout, "data");
  child.stdout.destroy();
  const [code] = await once(child, "close");
  expect({ code, stderr }).toEqual({ code: 0, stderr: "" });
});

test("Ctrl-C ends generate with a shell's exit code for it", async () => {
  const child = spawn(process.execPath, [MAIN, "generate", checkpoint.dir, "Hi", "--max-tokens", "215"]);
  await once(child.stdout, "data");
  child.kill("SIGINT");
  const [code] = await once(child, "close");
  expect(code).toBe(130);
});
