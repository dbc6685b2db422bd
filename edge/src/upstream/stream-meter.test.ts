import { expect, test } from "vitest";
import { meter } from "./stream-meter.ts";

const chunk = (value: unknown) => JSON.stringify(value);

test("adds up the layers of the tokens", () => {
  const events = [
    chunk({ choices: [{ delta: { role: "assistant" } }] }),
    chunk({ choices: [{ delta: { content: "a" }, layers_used: [12, 18] }] }),
    chunk({ choices: [{ delta: {}, layers_used: [24] }] }),
  ];
  expect(meter(events)).toEqual({ layers: 54, tokens: 3, account: undefined, failed: false, done: false });
});

test("tells an error and the end", () => {
  expect(meter([chunk({ error: { message: "no", type: "server_error", code: null, param: null } })]).failed).toBe(true);
  expect(meter(["[DONE]"]).done).toBe(true);
});

test.each(["{", "[1]", '"text"', '{"choices":[{"layers_used":[-1]}]}', '{"fathom":{"cost":{}}}'])(
  "does not take %s for a chunk",
  (data) => {
    expect(() => meter([data])).toThrow();
  },
);
