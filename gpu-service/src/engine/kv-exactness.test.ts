import { join } from "node:path";
import { afterAll, beforeAll, describe, expect, test } from "vitest";
import { openCheckpoint } from "../checkpoint/open-checkpoint.ts";
import { temporaryFolder } from "../checkpoint/testing/temporary-folder.ts";
import { runVisits } from "./batch-step.ts";
import { CostModel } from "./cost-model.ts";
import { type Executor, loadExecutor } from "./executor.ts";
import { probeExits, scoreExits } from "./probe.ts";
import { Sequence } from "./sequence.ts";
import { importTinyLlama, tinyReference } from "./testing/tiny-llama.ts";
import type { EngineRequest, ExecutionProvider } from "./types.ts";
import { type HeadRow, PrefillVisit, TokenVisit } from "./visit.ts";

const provider = (process.env.FATHOM_TEST_PROVIDER ?? "cpu") as ExecutionProvider;

/** Remembers the logits at the target depth. */
class LoggedVisit extends TokenVisit {
  logits: Float32Array | undefined;

  override decide(depth: number, heads: readonly HeadRow[]): boolean {
    if (depth === this.deepest) this.logits = heads[0]?.logits?.slice();
    return super.decide(depth, heads);
  }
}

describe.each(["tied", "untied"] as const)(`a %s head, on ${provider}`, (variant) => {
  const reference = tinyReference(variant);
  const { exits } = reference;
  const full = exits.at(-1) ?? 0;
  const dir = join(temporaryFolder(), variant);
  let executor: Executor;

  beforeAll(async () => {
    await importTinyLlama(variant, dir);
    const { manifest } = await openCheckpoint(dir);
    executor = await loadExecutor({ dir, manifest, exits, provider, threads: 1 });
  });
  afterAll(() => executor.close());

  test("after any confidence-exit run, the next token at full depth sees what a full-depth run sees", async () => {
    const cost = new CostModel();
    let early = 0;
    for (const [p, prompt] of reference.prompts.entries()) {
      // Thresholds at which a good part of the tokens leaves at each exit.
      const scores = await scoreExits(executor, { tokens: prompt, from: 0, withLoss: false });
      const thresholds = Object.fromEntries(
        scores.slice(0, -1).map(({ depth, confidence }) => [depth, confidence.toSorted()[confidence.length >> 1] ?? 1]),
      );
      const request: EngineRequest = {
        id: `p${p}`,
        prompt,
        depth: full,
        policy: { type: "confidence", thresholds },
        // Sampling, so that the logits come along.
        sampling: { temperature: 1, topP: 1, seed: p },
        maxTokens: 20,
        stopTokenIds: [],
      };
      const sequence = new Sequence(request, exits.length, executor.architecture.hidden_size);
      executor.reserve(sequence.id, full, prompt.length + 21);
      if (prompt.length > 1) await runVisits(executor, [new PrefillVisit(sequence, prompt.length - 1)], cost);
      for (let i = 0; i < 20; i++) {
        const visit = new TokenVisit(sequence, sequence.tokens.length, true);
        await runVisits(executor, [visit], cost);
        for (const { token, layers } of visit.decisions) {
          sequence.tokens.push(token);
          if (layers < full) early++;
        }
      }
      const last = new LoggedVisit(sequence, sequence.tokens.length, false);
      await runVisits(executor, [last], cost);
      expect(sequence.pendingRows).toBe(0);
      const [plain] = await probeExits(executor, sequence.tokens, [full]);
      const worst = Math.max(
        ...(plain?.logits ?? []).map((value, i) => Math.abs(value - (last.logits?.[i] ?? Number.NaN))),
      );
      expect(worst).toBeLessThan(2e-4);
      executor.release(sequence.id);
    }
    expect(early).toBeGreaterThan(20);
  });
});
