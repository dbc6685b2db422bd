import fc from "fast-check";
import { expect, test } from "vitest";
import { Sequence } from "./sequence.ts";

const WIDTH = 2;
const SEGMENTS = 3;

const sequence = (prompt: readonly number[]) =>
  new Sequence(
    {
      id: "s",
      prompt,
      depth: 12,
      sampling: { temperature: 0, topP: 1, seed: 0 },
      maxTokens: 100,
      stopTokenIds: [],
    },
    SEGMENTS,
    WIDTH,
  );

/** The residual stream at a position behind a segment: says which tokens it comes from, by their ids up to there. */
function stream(tokens: readonly number[], from: number, to: number, segment: number): Float32Array {
  const values: number[] = [];
  for (let at = from; at < to; at++) {
    const history = tokens.slice(0, at + 1).reduce((hash, token) => (hash * 31 + token) % 65_521, 7);
    values.push(history, 1000 * segment + at);
  }
  return Float32Array.from(values);
}

/** Runs what a segment has to run, checking that its input is what the segment before made of exactly those positions. */
function runSegment(s: Sequence, segment: number, end: number): void {
  const { from, input } = s.next(segment, end);
  expect(from).toBe(s.computed(segment));
  if (segment === 0) expect(input).toEqual(s.tokens.slice(from, end));
  else expect(input).toEqual(stream(s.tokens, from, end, segment - 1));
  s.ran(segment, end - from, stream(s.tokens, from, end, segment));
}

function checkComputed(s: Sequence): void {
  const computed = Array.from({ length: SEGMENTS }, (_, segment) => s.computed(segment));
  expect(computed).toEqual(computed.toSorted((x, y) => y - x));
  expect(computed[0]).toBeLessThanOrEqual(s.tokens.length);
  expect(s.pendingRows).toBe((computed[0] ?? 0) - (computed.at(-1) ?? 0));
  for (let segment = 1; segment < SEGMENTS; segment++) {
    const [before, own] = [computed[segment - 1] ?? 0, computed[segment] ?? 0];
    expect(s.next(segment, s.tokens.length).input).toEqual(stream(s.tokens, own, before, segment - 1));
  }
}

test("through any visits, roll-backs and restarts every segment owes exactly what the one before has run", () => {
  const action = fc.oneof(
    {
      weight: 5,
      arbitrary: fc.record({
        type: fc.constant("visit" as const),
        segments: fc.integer({ min: 1, max: SEGMENTS }),
        tokens: fc.array(fc.nat(30_000), { maxLength: 3 }),
        short: fc.nat(2),
      }),
    },
    { weight: 1, arbitrary: fc.record({ type: fc.constant("rollBack" as const), by: fc.nat(4) }) },
    { weight: 1, arbitrary: fc.record({ type: fc.constant("restart" as const), share: fc.nat(8) }) },
  );
  fc.assert(
    fc.property(
      fc.array(fc.nat(30_000), { minLength: 1, maxLength: 6 }),
      fc.array(action, { maxLength: 40, size: "max" }),
      (prompt, actions) => {
        const s = sequence(prompt);
        for (const a of actions) {
          if (a.type === "visit") {
            s.tokens.push(...a.tokens);
            // A visit may leave the last tokens to the next, but always has something to run.
            const end = Math.max(s.computed(0) + 1, s.tokens.length - a.short);
            if (end > s.tokens.length) continue;
            for (let segment = 0; segment < a.segments; segment++) runSegment(s, segment, end);
            for (let segment = 0; segment < a.segments; segment++) expect(s.computed(segment)).toBe(end);
          } else if (a.type === "rollBack") {
            const before = Array.from({ length: SEGMENTS }, (_, segment) => s.computed(segment));
            const length = Math.max(prompt.length, s.tokens.length - a.by);
            s.rollBack(length);
            expect(s.tokens.length).toBe(length);
            for (const [segment, was] of before.entries()) expect(s.computed(segment)).toBe(Math.min(was, length));
          } else {
            const length = Math.min(a.share, s.tokens.length - 1);
            s.restart(length);
            for (let segment = 0; segment < SEGMENTS; segment++) expect(s.computed(segment)).toBe(length);
            expect(s.pendingRows).toBe(0);
          }
          checkComputed(s);
          expect(s.generated).toBe(s.tokens.length - prompt.length);
        }
      },
    ),
  );
});

test("tokens that stopped early go through the next segment together with the one that goes on", () => {
  const s = sequence([5, 6]);
  for (let segment = 0; segment < SEGMENTS; segment++) runSegment(s, segment, 2);
  for (const token of [7, 8]) {
    s.tokens.push(token);
    runSegment(s, 0, s.tokens.length);
  }
  expect(s.pendingRows).toBe(2);
  s.tokens.push(9);
  runSegment(s, 0, 5);
  expect(s.next(1, 5)).toEqual({ from: 2, input: stream(s.tokens, 2, 5, 0) });
  runSegment(s, 1, 5);
  runSegment(s, 2, 5);
  expect(s.pendingRows).toBe(0);
});

test("the prompt given is not touched, and a segment beyond the request's depth is refused", () => {
  const prompt = [1, 2];
  const s = sequence(prompt);
  s.tokens.push(3);
  expect(prompt).toEqual([1, 2]);
  expect(() => s.next(SEGMENTS, 3)).toThrow(RangeError);
});
