import fc from "fast-check";
import { expect, test } from "vitest";
import { CostModel } from "./cost-model.ts";
import {
  chooseDraftLength,
  DraftController,
  drawDraft,
  expectedTokens,
  MAX_DRAFT,
  verifyGreedy,
  verifySampled,
} from "./speculation.ts";

test("greedy: the longest prefix that the target chose stands, and the target's next token follows", () => {
  expect(verifyGreedy([1, 2, 3], [1, 2, 3, 4])).toEqual({ accepted: 3, next: 4 });
  expect(verifyGreedy([1, 2, 3], [1, 9, 3, 4])).toEqual({ accepted: 1, next: 9 });
  expect(verifyGreedy([1, 2, 3], [5, 2, 3, 4])).toEqual({ accepted: 0, next: 5 });
  expect(verifyGreedy([], [7])).toEqual({ accepted: 0, next: 7 });
});

test("greedy: whatever is drafted, the answer goes on as the target alone would", () => {
  // The target's choice depends on all that came before.
  const choose = (tokens: readonly number[]) => tokens.reduce((hash, token) => (hash * 7 + token + 1) % 3, 1);
  fc.assert(
    fc.property(fc.array(fc.nat(2), { maxLength: 6 }), fc.array(fc.nat(2), { maxLength: 8 }), (before, draft) => {
      const target = [...draft, 0].map((_, i) => choose([...before, ...draft.slice(0, i)]));
      const { accepted, next } = verifyGreedy(draft, target);
      const plain = [...before];
      for (let i = 0; i <= accepted; i++) plain.push(choose(plain));
      expect([...before, ...draft.slice(0, accepted), next]).toEqual(plain);
    }),
  );
});

const VOCAB = 4;
/** What the target and the draft say after a token, −1 before the first: unlike each other, with tokens only one may draw. */
const TARGET: Record<number, Float64Array> = {
  [-1]: Float64Array.of(0.5, 0.2, 0.25, 0.05),
  0: Float64Array.of(0.1, 0.6, 0.3, 0),
  1: Float64Array.of(0.25, 0.25, 0.25, 0.25),
  2: Float64Array.of(0.7, 0.1, 0.1, 0.1),
  3: Float64Array.of(0.05, 0.05, 0.2, 0.7),
};
const DRAFT: Record<number, Float64Array> = {
  [-1]: Float64Array.of(0.2, 0.4, 0.1, 0.3),
  0: Float64Array.of(0.4, 0.2, 0.2, 0.2),
  1: Float64Array.of(0.7, 0.3, 0, 0),
  2: Float64Array.of(0.6, 0.2, 0.1, 0.1),
  3: Float64Array.of(0.3, 0.3, 0.3, 0.1),
};
const after = (table: Record<number, Float64Array>, token: number) => table[token] ?? Float64Array.of(1, 0, 0, 0);
const p = (token: number, next: number) => after(TARGET, token)[next] ?? 0;

/** One draft of `length` and its verification, behind `previous`; `index` is that of its first token. */
function round(previous: number, length: number, seed: number, index: number): { tokens: number[]; accepted: number } {
  const draft: { token: number; distribution: Float64Array }[] = [];
  let token = previous;
  for (let i = 0; i < length; i++) {
    const distribution = after(DRAFT, token);
    token = drawDraft(distribution, seed, index + i);
    draft.push({ token, distribution });
  }
  const seen = [previous, ...draft.map((one) => one.token)];
  const target = seen.map((one) => after(TARGET, one));
  const { accepted, next } = verifySampled(draft, target, seed, index);
  return { tokens: [...draft.slice(0, accepted).map((one) => one.token), next], accepted };
}

function chiSquare(counts: ReadonlyMap<string, number>, expected: ReadonlyMap<string, number>): number {
  const draws = [...counts.values()].reduce((x, y) => x + y, 0);
  let sum = 0;
  for (const [cell, share] of expected) {
    const n = counts.get(cell) ?? 0;
    if (share === 0) expect(n).toBe(0);
    else sum += (n - draws * share) ** 2 / (draws * share);
  }
  return sum;
}

const tokens = Array.from({ length: VOCAB }, (_, token) => token);
const ANSWERS = 20_000;

test.each([1, 2, 5])(
  "sampled: the first token is distributed as the target's with drafts of %i (chi-square, 3 degrees of freedom, p = 0.0001)",
  (length) => {
    const counts = new Map<string, number>();
    const accepted = new Set<number>();
    for (let seed = 0; seed < ANSWERS; seed++) {
      const result = round(-1, length, 1_000_003 * length + seed, 0);
      accepted.add(result.accepted);
      const cell = `${result.tokens[0]}`;
      counts.set(cell, (counts.get(cell) ?? 0) + 1);
    }
    expect(accepted.size).toBe(length + 1);
    expect(chiSquare(counts, new Map(tokens.map((token) => [`${token}`, p(-1, token)])))).toBeLessThan(21.1);
  },
);

test.each([1, 2, 3])(
  "sampled: three tokens together are distributed as the target's over rounds of %i (chi-square, p = 0.0001)",
  (length) => {
    const counts = new Map<string, number>();
    const first = new Set<number>();
    for (let seed = 0; seed < ANSWERS; seed++) {
      const answer: number[] = [];
      while (answer.length < 3) {
        const result = round(answer.at(-1) ?? -1, length, 77_777 * length + seed, answer.length);
        if (answer.length === 0) first.add(result.accepted);
        answer.push(...result.tokens);
      }
      const cell = answer.slice(0, 3).join();
      counts.set(cell, (counts.get(cell) ?? 0) + 1);
    }
    expect(first.size).toBe(length + 1);
    const expected = new Map<string, number>();
    for (const a of tokens) {
      for (const b of tokens) for (const c of tokens) expected.set(`${a},${b},${c}`, p(-1, a) * p(a, b) * p(b, c));
    }
    // 56 of the 64 cells are possible: 55 degrees of freedom.
    expect([...expected.values()].filter((share) => share > 0).length).toBe(56);
    expect(chiSquare(counts, expected)).toBeLessThan(102.9);
  },
);

test("sampled: two tokens in a row are independent where the target says so, within one answer of many tokens", () => {
  const share = Float64Array.of(0.4, 0.3, 0.2, 0.1);
  const flat = Float64Array.of(0.25, 0.25, 0.25, 0.25);
  const answer: number[] = [];
  while (answer.length < ANSWERS) {
    const draft = Array.from({ length: 3 }, (_, i) => ({
      token: drawDraft(flat, 42, answer.length + i),
      distribution: flat,
    }));
    const { accepted, next } = verifySampled(draft, [share, share, share, share], 42, answer.length);
    answer.push(...draft.slice(0, accepted).map(({ token }) => token), next);
  }
  const counts = new Map<string, number>();
  for (let i = 0; i + 1 < answer.length; i += 2) {
    const cell = `${answer[i]},${answer[i + 1]}`;
    counts.set(cell, (counts.get(cell) ?? 0) + 1);
  }
  const expected = new Map(
    tokens.flatMap((a) => tokens.map((b): [string, number] => [`${a},${b}`, (share[a] ?? 0) * (share[b] ?? 0)])),
  );
  // 15 degrees of freedom, p = 0.0001.
  expect(chiSquare(counts, expected)).toBeLessThan(44.3);
});

test("sampled: a draft from the target's own distribution stands whole", () => {
  const own = Float64Array.of(0.1, 0.2, 0.3, 0.4);
  for (let seed = 0; seed < 200; seed++) {
    const draft = [0, 1, 2].map((i) => ({ token: drawDraft(own, seed, i), distribution: own }));
    expect(verifySampled(draft, [own, own, own, own], seed, 0).accepted).toBe(3);
  }
});

test("sampled: refuses a draft without the target's distributions", () => {
  const own = Float64Array.of(1);
  expect(() => verifySampled([{ token: 0, distribution: own }], [], 1, 0)).toThrow(RangeError);
  expect(() => verifySampled([{ token: 0, distribution: own }], [own], 1, 0)).toThrow(RangeError);
});

test("the expected tokens are those of all outcomes, weighted", () => {
  fc.assert(
    fc.property(fc.double({ min: 0, max: 1, noNaN: true }), fc.nat(MAX_DRAFT), (acceptance, length) => {
      let mean = 0;
      for (let outcome = 0; outcome < 2 ** length; outcome++) {
        const stands = Array.from({ length }, (_, i) => (outcome >> i) % 2 === 1);
        const probability = stands.reduce((q, one) => q * (one ? acceptance : 1 - acceptance), 1);
        const fall = stands.indexOf(false);
        mean += probability * ((fall < 0 ? length : fall) + 1);
      }
      expect(expectedTokens(acceptance, length)).toBeCloseTo(mean, 9);
    }),
  );
});

/** Rows cost nothing beyond the reading of the weights. */
function weightBound(): CostModel {
  const cost = new CostModel();
  for (let n = 1; n <= 512; n *= 2) {
    cost.observeLayers(n, 1, 1);
    cost.observeHead(n, 1);
  }
  return cost;
}

/** Every row costs as much as the first. */
function computeBound(): CostModel {
  const cost = new CostModel();
  for (let n = 1; n <= 512; n *= 2) {
    cost.observeLayers(n, 1, n);
    cost.observeHead(n, n);
  }
  return cost;
}

const live = fc.integer({ min: 1, max: 32 });
const depths = fc
  .record({ draftDepth: fc.integer({ min: 1, max: 39 }), more: fc.integer({ min: 1, max: 39 }) })
  .map(({ draftDepth, more }) => ({ draftDepth, depth: draftDepth + more }));
const acceptances = fc.double({ min: 0, max: 1, noNaN: true });

test("nothing is drafted when drafting costs as much as the target, when nothing stands, or when rows are not cheaper together", () => {
  fc.assert(
    fc.property(live, depths, acceptances, (n, { draftDepth, depth }, acceptance) => {
      for (const cost of [new CostModel(), weightBound(), computeBound()]) {
        expect(chooseDraftLength({ acceptance, live: n, draftDepth: depth, depth }, cost)).toBe(0);
        expect(chooseDraftLength({ acceptance: 0, live: n, draftDepth, depth }, cost)).toBe(0);
      }
      // Costs are known by powers of two: there they are exact.
      const exact = 2 ** Math.floor(Math.log2(n));
      expect(chooseDraftLength({ acceptance, live: exact, draftDepth, depth }, computeBound())).toBe(0);
    }),
  );
});

test("the draft grows with the acceptance, up to its longest where a draft is cheap and always stands", () => {
  fc.assert(
    fc.property(live, depths, acceptances, acceptances, (n, setting, x, y) => {
      for (const cost of [new CostModel(), weightBound()]) {
        const lengths = [x, y]
          .toSorted((a, b) => a - b)
          .map((acceptance) => {
            const length = chooseDraftLength({ ...setting, acceptance, live: n }, cost);
            expect(length).toBeGreaterThanOrEqual(0);
            expect(length).toBeLessThanOrEqual(MAX_DRAFT);
            return length;
          });
        expect(lengths[0]).toBeLessThanOrEqual(lengths[1] ?? 0);
      }
    }),
  );
  expect(chooseDraftLength({ acceptance: 1, live: 1, draftDepth: 1, depth: 40 }, weightBound())).toBe(MAX_DRAFT);
});

test("the length chosen yields most tokens per millisecond", () => {
  fc.assert(
    fc.property(depths, acceptances, ({ draftDepth, depth }, acceptance) => {
      // A layer and a head take 1 ms: drafts of k tokens cost k (draftDepth + 1), their verification depth + 1.
      const rate = (k: number) => expectedTokens(acceptance, k) / (k * (draftDepth + 1) + depth + 1);
      const rates = Array.from({ length: MAX_DRAFT + 1 }, (_, k) => rate(k));
      const chosen = chooseDraftLength({ acceptance, live: 1, draftDepth, depth }, weightBound());
      expect(rates[chosen]).toBeCloseTo(Math.max(...rates), 9);
    }),
  );
});

/** Decodes `tokens` tokens; of a draft's, `stand` says how many stand. @returns the lengths asked for */
function decode(
  controller: DraftController,
  cost: CostModel,
  count: number,
  stand: (length: number) => number,
): number[] {
  const lengths: number[] = [];
  for (let i = 0; i < count; i++) {
    const length = controller.next(1, cost);
    lengths.push(length);
    if (length > 0) controller.observe(length, stand(length));
  }
  return lengths;
}

test("a controller drafts on while drafts stand, and longer than at first", () => {
  const controller = new DraftController({ draftDepth: 8, depth: 32 });
  const lengths = decode(controller, weightBound(), 100, (length) => length);
  expect(lengths.every((length) => length > 0)).toBe(true);
  expect(lengths.at(-1)).toBeGreaterThan(lengths[0] ?? 0);
  expect(controller.proposed).toBe(lengths.reduce((x, y) => x + y, 0));
  expect(controller.accepted).toBe(controller.proposed);
});

test("a controller whose drafts fall switches itself off, and tries again after ever longer pauses", () => {
  const controller = new DraftController({ draftDepth: 8, depth: 32 });
  const lengths = decode(controller, weightBound(), 4000, () => 0);
  const pauses: number[] = [];
  let pause = 0;
  for (const length of lengths) {
    if (length === 0) pause++;
    else if (pause > 0) {
      pauses.push(pause);
      pause = 0;
    }
  }
  expect(pauses.length).toBeGreaterThan(4);
  expect(pauses).toEqual(pauses.toSorted((x, y) => x - y));
  expect(pauses[0]).toBeLessThan(64);
  expect(Math.max(...pauses)).toBeLessThanOrEqual(600);
  expect(lengths.filter((length) => length > 0).length).toBeLessThan(400);
  expect(controller.accepted).toBe(0);
});

test("a controller that was off drafts on once its drafts stand again", () => {
  const controller = new DraftController({ draftDepth: 8, depth: 32 });
  decode(controller, weightBound(), 200, () => 0);
  const lengths = decode(controller, weightBound(), 2000, (length) => length);
  expect(lengths.slice(-500).every((length) => length > 0)).toBe(true);
});

test("a controller that expects nothing from drafting tries once, because the costs are guesses before", () => {
  const controller = new DraftController({ draftDepth: 31, depth: 32 });
  const lengths = decode(controller, computeBound(), 1000, (length) => length);
  expect(lengths[0]).toBe(1);
  expect(lengths.slice(1).every((length) => length === 0)).toBe(true);
});
