import { join } from "node:path";
import { afterAll, beforeAll, expect, test } from "vitest";
import { importCheckpoint } from "../checkpoint/import-checkpoint.ts";
import { temporaryFolder } from "../checkpoint/testing/temporary-folder.ts";
import { loadEngine } from "../engine/load-engine.ts";
import type { Engine, ExitPolicy } from "../engine/types.ts";
import { randomStream } from "../random/random-stream.ts";
import { simulateExits } from "./exit-simulation.ts";
import { recordAnswers } from "./record-answers.ts";

const source = new URL("../../../test/fixtures/tiny-llama/tied", import.meta.url).pathname;
const dir = join(temporaryFolder(), "model");
const exits = [2, 4, 6, 8];
const maxTokens = 24;
let engine: Engine;

beforeAll(async () => {
  await importCheckpoint(source, dir, { exits, weights: "fp32" });
  engine = await loadEngine(dir);
});
afterAll(() => engine.close());

async function generate(id: string, prompt: readonly number[], policy: ExitPolicy) {
  const decided: { token: number; layers: number }[] = [];
  const sampling = { temperature: 0, topP: 1, seed: 0 };
  const request = { id, prompt, depth: 8, policy, sampling, maxTokens, stopTokenIds: [] };
  for await (const event of engine.generate(request)) {
    if (event.type === "token") decided.push({ token: event.token, layers: event.layers });
  }
  return decided;
}

test("while a text follows full depth's, the engine decides each token where calibration says, and as it says", async () => {
  const random = randomStream(5);
  const prompts = Array.from({ length: 24 }, () =>
    Array.from({ length: 2 + Math.floor(random() * 9) }, () => 3 + Math.floor(random() * 300)),
  );
  const answers = await recordAnswers(engine, prompts, {
    maxTokens,
    stopTokenIds: [],
    parallel: 4,
    signal: new AbortController().signal,
  });
  // Thresholds that the confidences straddle, so that every exit has its share.
  const thresholds = Object.fromEntries(
    exits.slice(0, -1).map((depth, exit) => {
      const confidences = answers.flatMap(({ confidence }) => [...(confidence[exit] ?? [])]).sort((x, y) => x - y);
      return [depth, confidences[Math.floor(0.7 * confidences.length)] ?? 1];
    }),
  );
  const layers = new Set<number>();
  for (const [i, prompt] of prompts.entries()) {
    const answer = answers[i];
    if (!answer) throw new Error("an answer is missing");
    const full = await generate(`full-${i}`, prompt, { type: "fixed" });
    const early = await generate(`early-${i}`, prompt, { type: "confidence", thresholds });
    for (const [t, decision] of early.entries()) {
      const row = {
        tokens: 1,
        confidence: answer.confidence.map((exit) => exit.slice(t, t + 1)),
        differs: answer.differs.map((exit) => exit.slice(t, t + 1)),
      };
      // A confidence that is a threshold itself may fall on either side: another batch shape, another last bit.
      const close = row.confidence.some(
        (exit, e) => Math.abs((exit[0] ?? 0) - (thresholds[exits[e] ?? 0] ?? 0)) < 1e-5,
      );
      if (close) break;
      const { differing, layers: depth } = simulateExits([row], exits, thresholds);
      expect({ t, layers: decision.layers, differs: decision.token !== full[t]?.token }).toEqual({
        t,
        layers: depth,
        differs: differing === 1,
      });
      layers.add(depth);
      if (differing > 0) break;
    }
  }
  expect([...layers].sort()).toEqual(exits);
});
