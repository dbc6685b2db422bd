import { type ChildProcess, spawn } from "node:child_process";
import { once } from "node:events";
import { readFileSync } from "node:fs";
import { mkdir, readdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { type HubServer, startHubServer } from "../checkpoint/testing/hub-server.ts";
import { temporaryFolder } from "../checkpoint/testing/temporary-folder.ts";
import { tinyFolder, tinyGguf, writeTinyGguf } from "../checkpoint/testing/tiny-gguf.ts";

const main = new URL("main.ts", import.meta.url).pathname;
const root = temporaryFolder();
let hub: HubServer;

beforeAll(async () => {
  const folder = tinyFolder("untied");
  const names = ["config.json", "model.safetensors"];
  hub = await startHubServer(
    "tiny/llama",
    Object.fromEntries(names.map((name) => [name, readFileSync(join(folder, name))])),
  );
});
afterAll(() => hub.close());

interface Result {
  code: number | null;
  stdout: string;
  stderr: string;
}

function start(...args: string[]): { child: ChildProcess; result: Promise<Result> } {
  const env = { ...process.env, HF_ENDPOINT: hub.url, HF_TOKEN: "" };
  const child = spawn(process.execPath, [main, ...args], { cwd: root, env, stdio: ["ignore", "pipe", "pipe"] });
  const text = { stdout: "", stderr: "" };
  child.stdout.on("data", (data) => (text.stdout += data));
  child.stderr.on("data", (data) => (text.stderr += data));
  return { child, result: once(child, "close").then(([code]) => ({ code, ...text })) };
}

const fathom = (...args: string[]): Promise<Result> => start(...args).result;

test("import, then inspect", async () => {
  const source = tinyFolder("tied");
  const imported = await fathom(
    "import",
    source,
    "--out",
    "a",
    "--exits",
    "2,4,8",
    "--weights",
    "int8",
    "--name",
    "a1",
  );
  expect(imported).toEqual({ code: 0, stdout: "a1: exits 2, 4, 8 in a\n", stderr: "" });

  const json = await fathom("inspect", "a", "--json");
  expect(json.code).toBe(0);
  const report = JSON.parse(json.stdout);
  expect(report).toMatchObject({
    name: "a1",
    architecture: { type: "llama", layers: 8, tied: true },
    quantization: { layers: "int8" },
    tokenizer: { bos_token_id: 1, eos_token_ids: [2], file: null },
    provenance: { source: "tied" },
    verification: "sha256",
  });
  // 320 × 96 embedding, 96 × (96 + 2·48 + 96) attention, 3 · 96 · 160 MLP and two norms per layer, one norm.
  const parameters = (depth: number) => 320 * 96 + depth * (96 * 288 + 3 * 96 * 160 + 2 * 96) + 96;
  expect(report.exits.map(({ depth }: { depth: number }) => depth)).toEqual([2, 4, 8]);
  for (const exit of report.exits) expect(exit.parameters).toBe(parameters(exit.depth));
  expect(report.exits.at(-1).bytes).toBeLessThan(report.files.bytes);

  const text = await fathom("inspect", "a", "--no-verify");
  expect(text.stdout).toContain("llama, 8 layers, hidden 96, MLP 160");
  expect(text.stdout).toContain("sizes only");
});

test("a GGUF file imports with the default exits and weights", async () => {
  writeTinyGguf(join(root, "tiny.gguf"), tinyGguf("untied"));
  expect(await fathom("import", "tiny.gguf", "--out", "b")).toMatchObject({
    code: 0,
    stdout: "tiny: exits 2, 3, 5, 6 in b\n",
  });
  expect((await fathom("inspect", "b")).stdout).toContain("layers int4, embedding int8, head int8");
});

test("a card of one's own takes the place of the generated one, and the checkpoint stays whole", async () => {
  await fathom("import", tinyFolder("tied"), "--out", "carded", "--exits", "4,8");
  await writeFile(join(root, "card.md"), "# Mine\n");
  expect(await fathom("card", "carded", "--file", "card.md", "--name", "mine")).toEqual({
    code: 0,
    stdout: "mine: card in carded\n",
    stderr: "",
  });
  expect(await readFile(join(root, "carded/README.md"), "utf8")).toBe("# Mine\n");
  expect((await fathom("inspect", "carded")).stdout).toContain("mine");
  await fathom("quantize", "carded", "--out", "carded-int8", "--weights", "int8");
  expect(await readFile(join(root, "carded-int8/README.md"), "utf8")).toBe("# Mine\n");
  for (const [args, message] of [
    [["--file", "nothing.md"], "nothing.md: cannot be read"],
    [["--file", "card.md", "--name", "a name"], "'a name' is no name"],
  ] as const) {
    const { code, stderr } = await fathom("card", "carded", ...args);
    expect(code).toBe(1);
    expect(stderr).toContain(message);
  }
});

test("quantize and export write what they say, and import takes an export back", async () => {
  await fathom("import", tinyFolder("tied"), "--out", "q", "--exits", "2,4,8", "--weights", "fp32");
  expect(await fathom("quantize", "q", "--out", "q8", "--weights", "int8", "--exits", "4,8")).toEqual({
    code: 0,
    stdout: "tied: int8 in q8\n",
    stderr: "",
  });
  expect((await fathom("export", "q8", "--out", "hf", "--dtype", "bf16", "--shard-mb", "1")).stdout).toBe(
    "0.6 M parameters as bf16 in 2 files in hf\n",
  );
  expect((await fathom("import", "hf", "--out", "q16", "--exits", "4,8")).stdout).toBe("hf: exits 4, 8 in q16\n");
  expect(await fathom("export", "q8", "--out", "hf")).toMatchObject({
    code: 1,
    stderr: "fathom: hf: is not empty; export to another folder\n",
  });
});

test("pull downloads, verifies and imports", async () => {
  expect(await fathom("pull", "tiny/llama", "--exits", "3,6", "--weights", "fp16")).toEqual({
    code: 0,
    stdout: "tiny/llama is in models/llama\n",
    stderr: "",
  });
  expect(JSON.parse((await fathom("inspect", "models/llama", "--json")).stdout).exits).toHaveLength(2);
});

test("errors are one line that names the file, without a stack", async () => {
  expect(await fathom("import", tinyFolder("tied"), "--out", "c", "--exits", "2,4")).toMatchObject({
    code: 1,
    stdout: "",
    stderr: `fathom: ${tinyFolder("tied")}: exits 2,4: the last one must be the full depth, 8\n`,
  });
  expect(await fathom("inspect", "nowhere")).toMatchObject({
    code: 1,
    stderr: "fathom: nowhere: there is no such folder\n",
  });
  await mkdir(join(root, "full"));
  await writeFile(join(root, "full", "letter.txt"), "keep me");
  expect((await fathom("import", tinyFolder("tied"), "--out", "full", "--force")).stderr).toContain(
    "holds no checkpoint",
  );
  expect(await readFile(join(root, "full", "letter.txt"), "utf8")).toBe("keep me");
  expect((await fathom("pull", "tiny/other")).stderr).toContain("tiny/other: there is no such model on");
});

test.each([
  [["import", "x", "--out", "d", "--weights", "int3"], "int3"],
  [["import", "x", "--out", "d", "--exits", "8,4"], "ascending depths"],
  [["import", "x"], "--out"],
  [["pull"], "model"],
  [["export", "x"], "--out"],
  [["export", "x", "--out", "y", "--dtype", "int4"], "int4"],
  [["quantize", "x", "--out", "y", "--exits", "8,4"], "ascending depths"],
  [["calibrate", "x", "--agreement", "0.98"], "--data"],
  [["calibrate", "x", "--data", "y"], "--agreement"],
  [["calibrate", "x", "--data", "y", "--agreement", "1"], "--agreement"],
  [["calibrate", "x", "--data", "y", "--agreement", "0"], "--agreement"],
  [["calibrate", "x", "--data", "y", "--agreement", "0.9", "--confidence", "95"], "--confidence"],
])("wrong usage %j is exit code 2", async (args, mention) => {
  const { code, stderr } = await fathom(...args);
  expect(code).toBe(2);
  expect(stderr).toContain(mention);
});

test.each(["import", "pull", "inspect", "quantize", "export", "calibrate"])(
  "%s --help ends with an example",
  async (command) => {
    const { code, stdout } = await fathom(command, "--help");
    expect(code).toBe(0);
    expect(stdout).toMatch(new RegExp(`Example:\\n {2}\\$ fathom ${command} .+\\n+$`));
  },
);

test("Ctrl-C ends a pull in good order; the next one goes on", async () => {
  hub.stalled.add("model.safetensors");
  hub.downloads.length = 0;
  const { child, result } = start("pull", "tiny/llama", "--out", "e");
  await expect.poll(() => hub.downloads, { timeout: 20_000 }).toContain("model.safetensors");
  // The first bytes must have arrived, or there is nothing to go on from.
  const parts = async () => (await readdir(join(root, ".e.download"))).filter((name) => name.endsWith(".part"));
  await expect.poll(parts, { timeout: 20_000 }).toHaveLength(1);
  child.kill("SIGINT");
  expect(await result).toEqual({
    code: 130,
    stdout: "",
    stderr: "fathom: interrupted; run the same command again to go on\n",
  });
  hub.stalled.clear();
  expect((await fathom("pull", "tiny/llama", "--out", "e")).code).toBe(0);
  expect(await readdir(root)).not.toContain(".e.download");
});
