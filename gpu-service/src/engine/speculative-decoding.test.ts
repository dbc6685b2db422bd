import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { temporaryFolder } from "../checkpoint/testing/temporary-folder.ts";
import { loadEngine } from "./load-engine.ts";
import { distribution } from "./sampler.ts";
import { collect } from "./testing/collect.ts";
import { importTinyLlama, tinyReference } from "./testing/tiny-llama.ts";
import type { Engine, EngineRequest, ExecutionProvider } from "./types.ts";

const provider = (process.env.FATHOM_TEST_PROVIDER ?? "cpu") as ExecutionProvider;
const reference = tinyReference("tied");
const { exits } = reference;
const [draftDepth = 0] = exits;
const CELLS = 12;
const depth = exits.at(-1) ?? 0;

describe(`speculative decoding on ${provider}`, () => {
  const dir = join(temporaryFolder(), "tiny");
  let engine: Engine;

  beforeAll(async () => {
    await importTinyLlama("tied", dir);
    engine = await loadEngine(dir, { threads: 1, provider });
  });
  afterAll(() => engine.close());

  const request = (id: string, prompt: number[], changes: Partial<EngineRequest> = {}): EngineRequest => ({
    id,
    prompt,
    depth,
    policy: { type: "speculative", draftDepth, draftLength: 4 },
    sampling: { temperature: 0, topP: 1, seed: 0 },
    maxTokens: 24,
    stopTokenIds: [],
    ...changes,
  });

  test("greedy: the tokens of plain decoding, whatever the draft depth", async () => {
    let proposed = 0;
    for (const [p, prompt] of reference.prompts.entries()) {
      for (const shallow of exits.slice(0, -1)) {
        const policy = { type: "speculative", draftDepth: shallow, draftLength: 1 + (p % 8) } as const;
        const answer = await collect(engine, request(`greedy-${p}-${shallow}`, prompt, { policy }));
        expect(answer.tokens).toEqual(reference.greedy24[p]?.at(-1));
        expect(answer.layers).toEqual(answer.tokens.map(() => depth));
        expect(answer.account?.draft?.depth).toBe(shallow);
        proposed += answer.account?.draft?.proposed ?? 0;
      }
    }
    expect(proposed).toBeGreaterThan(0);
  });

  test.runIf(provider === "cpu")(
    "sampled: the second token is distributed as the target depth's (chi-square, p = 0.0001)",
    { timeout: 120_000 },
    async () => {
      const prompt = reference.prompts[0] ?? [];
      const [opening] = (await collect(engine, request("opening", prompt, { maxTokens: 1 }))).tokens;
      if (opening === undefined) throw new Error("nothing was decoded");
      // The first token is part of the prompt, so that every run drafts from it.
      const sampling = { temperature: 2, topP: 0.99 };
      const policy = { type: "speculative", draftDepth: exits.at(-2) ?? 0, draftLength: 3 } as const;
      const longer = [...prompt, opening];
      const [first] = await engine.probe(longer, [depth]);
      const p1 = distribution(first?.logits ?? new Float32Array(0), { ...sampling, seed: 0 });
      const expected = new Map<number, number>();
      for (const [token, p] of p1.entries()) {
        if (p === 0) continue; // outside the nucleus
        const [second] = await engine.probe([...longer, token], [depth]);
        const p2 = distribution(second?.logits ?? new Float32Array(0), { ...sampling, seed: 0 });
        for (const [next, q] of p2.entries()) expected.set(next, (expected.get(next) ?? 0) + p * q);
      }
      const draws = 3008;
      const counts = new Map<number, number>();
      let proposed = 0;
      let accepted = 0;
      for (let from = 0; from < draws; from += 16) {
        const answers = await Promise.all(
          Array.from({ length: 16 }, (_, i) =>
            collect(
              engine,
              request(`draw-${from + i}`, longer, { policy, sampling: { ...sampling, seed: from + i }, maxTokens: 4 }),
            ),
          ),
        );
        for (const { tokens, account } of answers) {
          counts.set(tokens[1] ?? -1, (counts.get(tokens[1] ?? -1) ?? 0) + 1);
          proposed += account?.draft?.proposed ?? 0;
          accepted += account?.draft?.accepted ?? 0;
        }
      }
      // Both ways of getting a token must have been taken.
      expect(accepted).toBeGreaterThan(0);
      expect(accepted).toBeLessThan(proposed);
      expect([...counts.keys()].filter((token) => (expected.get(token) ?? 0) === 0)).toEqual([]);
      // Tokens are thrown together into few cells, so that each is expected often.
      const cells = Array.from({ length: CELLS }, () => ({ mean: 0, count: 0 }));
      for (const [token, p] of expected) {
        const cell = cells[token % CELLS];
        if (cell) cell.mean += p * draws;
        if (cell) cell.count += counts.get(token) ?? 0;
      }
      const chiSquare = cells.reduce((sum, { mean, count }) => sum + (count - mean) ** 2 / mean, 0);
      // Wilson and Hilferty's approximation of the quantile at p = 0.0001.
      const freedom = CELLS - 1;
      const bound = freedom * (1 - 2 / (9 * freedom) + 3.719 * Math.sqrt(2 / (9 * freedom))) ** 3;
      expect(chiSquare).toBeLessThan(bound);
    },
  );
});
