import { mkdir, mkdtemp, readdir, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { startHubServer } from "@fathom/gpu-service/checkpoint/testing/hub-server.ts";
import { afterAll, beforeAll, expect, onTestFinished, test, vi } from "vitest";
import { findCheckpoint } from "./find-checkpoint.ts";

let root: string;
beforeAll(async () => {
  root = await mkdtemp(join(tmpdir(), "fathom-start-"));
  vi.stubEnv("PIP_NO_INDEX", "1");
  vi.stubEnv("PIP_FIND_LINKS", root);
});
afterAll(async () => {
  vi.unstubAllEnvs();
  await rm(root, { recursive: true });
});

async function manifestIn(dir: string): Promise<string> {
  await mkdir(dir, { recursive: true });
  await writeFile(join(dir, "manifest.json"), "{}");
  return dir;
}

test("the checkpoint is the given one, else a shipped one, else one that was fetched before: without the network", async () => {
  vi.stubEnv("HF_ENDPOINT", "http://127.0.0.1:9");
  const [shipped, state] = [join(root, "shipped"), join(root, "state")];
  const fetched = await manifestIn(join(state, "models/smollm2-135m"));
  expect(await findCheckpoint({ given: undefined, shipped, state })).toBe(fetched);
  const own = await manifestIn(join(shipped, "nested"));
  expect(await findCheckpoint({ given: undefined, shipped, state })).toBe(own);
  const given = await manifestIn(join(root, "given"));
  expect(await findCheckpoint({ given, shipped, state })).toBe(given);
  await expect(findCheckpoint({ given: join(root, "none"), shipped, state })).rejects.toThrow(
    "there is no nested checkpoint in",
  );
});

test("a model that cannot be fetched is said so, with what to do", async () => {
  vi.stubEnv("HF_ENDPOINT", "http://127.0.0.1:9");
  const places = { given: undefined, shipped: join(root, "nothing"), state: join(root, "offline") };
  await expect(findCheckpoint(places)).rejects.toThrow(
    /^smollm2-135m cannot be fetched: .+ npm start -- --checkpoint DIR$/,
  );
});

test("Ctrl-C within a fetch leaves the downloads only, for the next start", async () => {
  const hub = await startHubServer("HuggingFaceTB/SmolLM2-135M-Instruct", {
    "config.json": new Uint8Array(100),
    "model.safetensors": new Uint8Array(100),
  });
  onTestFinished(() => hub.close());
  hub.stalled.add("config.json");
  vi.stubEnv("HF_ENDPOINT", hub.url);
  const stop = new AbortController();
  const places = { given: undefined, shipped: join(root, "nothing"), state: join(root, "aborted") };
  const fetching = findCheckpoint(places, stop.signal);
  await expect.poll(() => hub.downloads).toHaveLength(1);
  stop.abort();
  await expect(fetching).rejects.toMatchObject({ name: "AbortError" });
  expect(await readdir(join(places.state, "models"))).toEqual([".smollm2-135m.download"]);
});
