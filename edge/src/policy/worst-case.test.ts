import { expect, test } from "vitest";
import { chatPromptSize, completionPromptSize, priceOffers } from "./worst-case.ts";

test("a completion has at most one token per byte", () => {
  expect(completionPromptSize({ model: "fathom", prompt: "tiefe Blätter" })).toEqual({ atMost: 14 + 16, about: 4 });
});

test("token ids are counted", () => {
  expect(completionPromptSize({ model: "fathom", prompt: [1, 2, 3] })).toEqual({ atMost: 3, about: 3 });
});

test("a chat counts every part of every message, and room for the template", () => {
  const size = chatPromptSize({
    model: "fathom",
    messages: [
      { role: "system", content: "abcd" },
      {
        role: "user",
        name: "me",
        content: [
          { type: "text", text: "ef" },
          { type: "text", text: "gh" },
        ],
      },
    ],
  });
  expect(size).toEqual({ atMost: 6 + 4 + 4 + 2 + 4 + 2 * 16 + 256, about: 5 + 2 * 4 });
});

test("an offer costs every token at its depth, rounded up to whole micro-USD", () => {
  const worst = { promptTokens: 10, maxTokens: 5, contextLength: 100, price: 7, mayClip: false };
  expect(priceOffers([{ depth: 12, reason: "plan", keep: 3 }], worst)).toEqual([
    { depth: 12, reason: "plan", keep: 3, cost: 2 },
  ]);
});

test("an offer that may be clipped says what a token costs", () => {
  const worst = { promptTokens: 10, maxTokens: 5, contextLength: 100, price: 7, mayClip: true };
  expect(priceOffers([{ depth: 12, reason: "plan", keep: 0 }], worst)).toEqual([
    { depth: 12, reason: "plan", keep: 0, cost: 2, clip: { promptTokens: 10, nanoUsdPerToken: 84 } },
  ]);
});

test("no request is longer than the context", () => {
  const worst = { promptTokens: 1000, maxTokens: 1000, contextLength: 100, price: 1000, mayClip: false };
  expect(priceOffers([{ depth: 12, reason: "plan", keep: 0 }], worst)[0]?.cost).toBe(1200);
});
