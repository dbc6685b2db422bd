import { readFileSync } from "node:fs";
import { mkdtemp, rm } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { importCheckpoint } from "../checkpoint/import-checkpoint.ts";
import { loadEngine } from "./load-engine.ts";
import type { Engine, ExecutionProvider } from "./types.ts";

/** What Hugging Face transformers computed for a random LLaMA; see test/fixtures/README.md. */
interface Reference {
  exits: number[];
  prompts: number[][];
  last_logits: number[][][];
  greedy24: number[][][];
}

const provider = (process.env.FATHOM_TEST_PROVIDER ?? "cpu") as ExecutionProvider;
const fixtures = new URL("../../../test/fixtures/tiny-llama/", import.meta.url).pathname;

async function greedy(engine: Engine, id: string, prompt: number[], depth: number): Promise<number[]> {
  const tokens: number[] = [];
  const sampling = { temperature: 0, topP: 1, seed: 0 };
  for await (const event of engine.generate({ id, prompt, depth, sampling, maxTokens: 24, stopTokenIds: [] })) {
    if (event.type !== "token") continue;
    expect(event.layers).toBe(depth);
    tokens.push(event.token);
  }
  return tokens;
}

describe.each(["tied", "untied"])(`a %s head, fp32, on ${provider}, against Hugging Face`, (variant) => {
  const reference: Reference = JSON.parse(readFileSync(join(fixtures, variant, "reference.json"), "utf8"));
  let dir: string;
  let engine: Engine;

  beforeAll(async () => {
    dir = await mkdtemp(join(tmpdir(), "fathom-parity-"));
    const out = join(dir, "checkpoint");
    await importCheckpoint(join(fixtures, variant), out, { exits: reference.exits, weights: "fp32" });
    engine = await loadEngine(out, { threads: 2, provider });
  });

  afterAll(async () => {
    await engine.close();
    await rm(dir, { recursive: true });
  });

  test("logits of the last position are within 2e-4 at every exit", async () => {
    for (const [p, prompt] of reference.prompts.entries()) {
      const exits = await engine.probe(prompt, reference.exits);
      expect(exits.map(({ depth }) => depth)).toEqual(reference.exits);
      for (const [e, { logits }] of exits.entries()) {
        const expected = reference.last_logits[p]?.[e] ?? [];
        const worst = Math.max(...expected.map((value, i) => Math.abs(value - (logits[i] ?? Number.NaN))));
        expect(worst).toBeLessThan(2e-4);
      }
    }
  });

  test("greedy continuations are identical at every exit, alone", async () => {
    for (const [p, prompt] of reference.prompts.entries()) {
      for (const [e, depth] of reference.exits.entries()) {
        expect(await greedy(engine, `${p}@${depth}`, prompt, depth)).toEqual(reference.greedy24[p]?.[e]);
      }
    }
  });

  test("and all together, more at a time than the engine runs at once", async () => {
    const runs = reference.prompts.flatMap((prompt, p) => reference.exits.map((depth, e) => ({ prompt, p, depth, e })));
    const answers = await Promise.all(
      runs.map(({ prompt, p, depth }) => greedy(engine, `${p}@${depth}`, prompt, depth)),
    );
    expect(runs.length).toBeGreaterThan(16);
    expect(answers).toEqual(runs.map(({ p, e }) => reference.greedy24[p]?.[e]));
  });
});
