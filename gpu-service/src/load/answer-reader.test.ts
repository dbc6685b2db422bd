import fc from "fast-check";
import { expect, test } from "vitest";
import { AnswerReader } from "./answer-reader.ts";

const encoder = new TextEncoder();
const event = (value: unknown) => `data: ${JSON.stringify(value)}\n\n`;
const chat = (delta: object, finish_reason: string | null = null) => event({ choices: [{ delta, finish_reason }] });
const DONE = "data: [DONE]\n\n";

function read(...parts: [atMs: number, text: string][]) {
  const reader = new AnswerReader();
  for (const [at, text] of parts) reader.feed(encoder.encode(text), at);
  return reader.end();
}

test("the first token is the first text, and gaps lie between chunks with text", () => {
  const reading = read(
    [10, chat({ role: "assistant", content: "" })],
    [30, chat({ content: "a" })],
    [45, chat({ content: "b" })],
    [65, chat({ content: "" })],
    [70, chat({ content: "c" }, "stop")],
    [71, event({ choices: [], usage: { prompt_tokens: 5, completion_tokens: 4, total_tokens: 9 } })],
    [71, DONE],
  );
  expect(reading).toEqual({
    firstAt: 30,
    gaps: [15, 25],
    usage: { prompt_tokens: 5, completion_tokens: 4 },
    fathom: undefined,
    failure: undefined,
  });
});

test("completions, thoughts and token ids count as well", () => {
  const choices = (choice: object) => event({ choices: [{ ...choice, finish_reason: null }] });
  const reading = read(
    [1, choices({ text: "a" })],
    [3, choices({ delta: { reasoning_content: "hm" } })],
    [6, choices({ text: "", token_ids: [7] })],
    [6, DONE],
  );
  expect(reading).toMatchObject({ firstAt: 1, gaps: [2, 3], failure: undefined });
});

test("an error in the stream, a cut stream and nonsense are failures", () => {
  const error = event({ error: { message: "Too late.", type: "server_error", code: "timeout", param: null } });
  expect(read([1, chat({ content: "a" })], [2, error]).failure).toEqual({ code: "timeout", message: "Too late." });
  expect(read([1, event({ error: { message: "no", code: 400 } })]).failure?.code).toBe("400");
  expect(read([1, chat({ content: "a" })]).failure?.code).toBe("incomplete_stream");
  expect(read([1, "data: {\n\n"], [2, DONE]).failure?.code).toBe("malformed_stream");
  expect(read([1, event({ choices: [{ delta: { content: 3 } }] })], [2, DONE]).failure?.code).toBe("malformed_stream");
  expect(read([1, chat({ content: "a" }, "stop")]).failure).toBeUndefined();
});

test("where the bytes are cut makes no difference", () => {
  const bytes = encoder.encode([chat({ content: "née" }), chat({ content: "🐋" }, "stop"), DONE].join(""));
  fc.assert(
    fc.property(fc.array(fc.nat({ max: bytes.length }), { maxLength: 8 }), (cuts) => {
      const ends = [...cuts, bytes.length].toSorted((x, y) => x - y);
      const reader = new AnswerReader();
      let start = 0;
      for (const end of ends) {
        reader.feed(bytes.subarray(start, end), 5);
        start = end;
      }
      expect(reader.end()).toMatchObject({ firstAt: 5, gaps: [0], failure: undefined });
    }),
  );
});
