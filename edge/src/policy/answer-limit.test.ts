import { expect, test } from "vitest";
import { answerLimit } from "./answer-limit.ts";

test("a wish is clipped to the plan", () => {
  expect(answerLimit(10, 100, 2048)).toEqual({ maxTokens: 10, atMost: 10, mayUseRoom: false });
  expect(answerLimit(1000, 100, 2048)).toEqual({ maxTokens: 100, atMost: 100, mayUseRoom: false });
});

test("without a wish the plan's limit holds, and the room that is left if that is less", () => {
  expect(answerLimit(undefined, 100, 2048)).toEqual({ maxTokens: 100, atMost: 100, mayUseRoom: true });
});

test("a limit beyond the context is left to the context", () => {
  expect(answerLimit(undefined, 4096, 2048)).toEqual({ maxTokens: undefined, atMost: 2048, mayUseRoom: false });
});
