import { readFileSync } from "node:fs";
import { join } from "node:path";
import { loadEngine } from "@fathom/gpu-service/engine/load-engine.ts";
import { type Answer, collect } from "@fathom/gpu-service/engine/testing/collect.ts";
import type { Engine, EngineRequest, ExitPolicy } from "@fathom/gpu-service/engine/types.ts";
import { TextModel } from "@fathom/gpu-service/text/text-model.ts";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { GGUF, reference, smollm2 } from "./smollm2.ts";

const { cases, exits } = reference;
const FULL = exits.at(-1) ?? 0;
/** Tokens per answer of the lossless test. */
const LONG = 128;

let serial = 0;
const request = (prompt: readonly number[], changes: Partial<EngineRequest> = {}): EngineRequest => ({
  id: `m${serial++}`,
  prompt,
  depth: FULL,
  sampling: { temperature: 0, topP: 1, seed: 0 },
  maxTokens: 24,
  stopTokenIds: [],
  ...changes,
});

/** The six reference prompts and fifty questions of Vicuna's set (Apache-2.0), as token ids. */
async function manyPrompts(dir: string): Promise<number[][]> {
  const questions: string[] = JSON.parse(readFileSync(join(import.meta.dirname, "../fixtures/vicuna-50.json"), "utf8"));
  const text = await TextModel.load(dir);
  if (!text) throw new Error("the checkpoint has no tokenizer");
  const own = await Promise.all(questions.map((content) => text.tokens([{ role: "user", content }])));
  return [...cases.map(({ token_ids }) => token_ids), ...own];
}

describe.runIf(GGUF !== undefined).each(["fp32", "int4"] as const)("SmolLM2-135M, %s", (weights) => {
  let dir: string;
  let engine: Engine;

  beforeAll(async () => {
    dir = await smollm2(weights);
    engine = await loadEngine(dir, { threads: 2, maxConcurrent: 8, maxWaiting: 1000 });
  });
  afterAll(() => engine.close());

  test("tokens and layers are the same alone and in a mix of depths and policies", async () => {
    const scores = await engine.score(cases[0]?.token_ids ?? [], 0);
    const thresholds = Object.fromEntries(
      scores
        .slice(0, -1)
        .map(({ depth, confidence }) => [depth, confidence.toSorted()[Math.floor(0.8 * confidence.length)] ?? 1]),
    );
    const policies: ExitPolicy[] = [
      { type: "fixed" },
      { type: "confidence", thresholds },
      { type: "speculative", draftDepth: 24 },
    ];
    const wishes = cases.flatMap(({ token_ids }, i) => [
      request(token_ids, { policy: policies[i % 3] ?? { type: "fixed" } }),
      request(token_ids, { depth: exits[i % exits.length] ?? FULL }),
    ]);
    const alone: Answer[] = [];
    for (const wish of wishes) alone.push(await collect(engine, { ...wish, id: `alone-${wish.id}` }));
    const together = await Promise.all(wishes.map((wish) => collect(engine, wish)));
    let equal = 0;
    for (const [i, answer] of together.entries()) {
      const same =
        JSON.stringify([answer.tokens, answer.layers]) === JSON.stringify([alone[i]?.tokens, alone[i]?.layers]);
      if (same) equal++;
      else await expectNearTie(engine, wishes[i], alone[i], answer);
    }
    console.log(`${weights}: ${equal} of ${wishes.length} answers equal alone and together`);
    if (weights === "fp32") expect(equal).toBe(wishes.length);
  });

  test("speculative greedy answers are those of plain decoding at the target depth", async () => {
    const prompts = await manyPrompts(dir);
    const run = (policy: ExitPolicy) =>
      Promise.all(prompts.map((prompt) => collect(engine, request(prompt, { policy, maxTokens: LONG }))));
    const plain = await run({ type: "fixed" });
    const drafted = await run({ type: "speculative", draftDepth: 27 });
    const proposed = drafted.reduce((sum, { account }) => sum + (account?.draft?.proposed ?? 0), 0);
    const accepted = drafted.reduce((sum, { account }) => sum + (account?.draft?.accepted ?? 0), 0);
    let equal = 0;
    for (const [i, answer] of drafted.entries()) {
      if (JSON.stringify(answer.tokens) === JSON.stringify(plain[i]?.tokens)) equal++;
      else await expectNearTie(engine, request(prompts[i] ?? []), plain[i], answer);
    }
    console.log(
      `${weights}: ${equal} of ${prompts.length} drafted answers equal; ${accepted} of ${proposed} drafts accepted`,
    );
    if (weights === "fp32") expect(equal).toBe(prompts.length);
    expect(proposed).toBeGreaterThan(0);
  });
});

/** Largest difference of logits between a row run alone and in a batch with the quantised kernels. */
const LOGIT_BOUND = 0.35;

/** Where two answers part, both tokens were nearly as probable at that depth: closer than what the kernels' rounding moves. */
async function expectNearTie(
  engine: Engine,
  wish: EngineRequest | undefined,
  one: Answer | undefined,
  other: Answer,
): Promise<void> {
  if (!wish || !one) throw new Error("there is nothing to compare with");
  const at = one.tokens.findIndex((token, i) => token !== other.tokens[i] || one.layers[i] !== other.layers[i]);
  const [a, b] = [one.tokens[at] ?? -1, other.tokens[at] ?? -1];
  if (a === b) return;
  const depth = Math.max(one.layers[at] ?? 0, other.layers[at] ?? 0);
  const [exit] = await engine.probe([...wish.prompt, ...one.tokens.slice(0, at)], [depth]);
  expect(Math.abs((exit?.logits[a] ?? 0) - (exit?.logits[b] ?? 0))).toBeLessThan(2 * LOGIT_BOUND);
}
