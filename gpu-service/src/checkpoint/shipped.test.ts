import { stat } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { expect, test } from "vitest";
import { loadEngine } from "../engine/load-engine.ts";
import { TextModel } from "../text/text-model.ts";
import { openCheckpoint } from "./open-checkpoint.ts";
import { weightsHash } from "./weight-files.ts";

const dir = fileURLToPath(new URL("../../checkpoints/smollm2-135m-nested", import.meta.url));

test("the shipped checkpoint is whole, small enough for a repository, and calibrated as it is", async () => {
  const { manifest } = await openCheckpoint(dir, { verify: true });
  const sizes = manifest.files.map(({ bytes }) => bytes);
  expect(Math.max(...sizes)).toBeLessThan(45e6);
  const { size } = await stat(join(dir, "manifest.json"));
  expect(sizes.reduce((x, y) => x + y, size)).toBeLessThan(95e6);
  expect(manifest.exits).toEqual([21, 24, 27, 30]);
  expect(manifest.quantization).toMatchObject({ layers: "int4", embedding: "int8", block_size: 32 });
  expect(manifest.calibration).toMatchObject({
    certified: true,
    agreement: 0.95,
    weights_sha256: weightsHash(manifest),
  });
  expect(Object.keys(manifest.thresholds ?? {})).toEqual(["21", "24", "27"]);
  const losses = manifest.profile?.exits.map(({ loss }) => loss);
  expect(losses).toEqual(losses?.toSorted((x, y) => (y ?? 0) - (x ?? 0)));
});

test("its deep exits answer", async () => {
  const text = await TextModel.load(dir);
  if (!text) throw new Error("it has no tokenizer");
  const [paris] = text.encode(" Paris", false);
  const engine = await loadEngine(dir, { threads: 2, kvMemory: 2 ** 26 });
  try {
    const prompt = await text.tokens([{ role: "user", content: "What is the capital of France?" }]);
    for (const depth of [27, 30]) {
      const tokens: number[] = [];
      const sampling = { temperature: 0, topP: 1, seed: 0 };
      const request = { id: `${depth}`, prompt, depth, sampling, maxTokens: 12, stopTokenIds: [2] };
      for await (const event of engine.generate(request)) if (event.type === "token") tokens.push(event.token);
      expect(tokens).toContain(paris);
    }
  } finally {
    await engine.close();
  }
});
