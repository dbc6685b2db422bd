import { expect, test } from "vitest";
import { parsePrompts } from "./prompts.ts";

const one = (record: object) => parsePrompts(JSON.stringify(record), "x.jsonl")[0];

test("a prompt is found in every set's own field", () => {
  const text = (value: string) => ({ kind: "text", text: value });
  expect(one({ question_id: 1, text: "Vicuna?", category: "generic" })).toEqual(text("Vicuna?"));
  expect(one({ id: "koala_0", prompt: "Koala?" })).toEqual(text("Koala?"));
  expect(one({ idx: 1, Skill: "Math", Instruction: "Wizard?" })).toEqual(text("Wizard?"));
  expect(one({ instruction: "Add.", input: "1, 2", output: "3" })).toEqual(text("Add.\n\n1, 2"));
  expect(one({ instruction: "Hello.", input: "", output: "" })).toEqual(text("Hello."));
  expect(one({ instruction: "Mend.", instances: [{ input: "teh", output: "the" }] })).toEqual(text("Mend.\n\nteh"));
  expect(one({ instruction: " ", input: "Alone" })).toEqual(text("Alone"));
  expect(one({ context: "Question: Q?\nAnswer:", answer: "A" })).toEqual(text("Question: Q?\nAnswer:"));
  expect(
    one({
      conversations: [
        { from: "human", value: "Hi" },
        { from: "gpt", value: "Ho" },
      ],
    }),
  ).toEqual(text("Hi"));
  expect(one({ prompt_tokens: [1, 2], completion_tokens: [3] })).toEqual({ kind: "tokens", tokens: [1, 2] });
});

test("a chat is asked up to its last answer", () => {
  const turn = (role: string, content: string) => ({ role, content });
  const messages = [turn("user", "a"), turn("assistant", "b"), turn("user", "c"), turn("assistant", "d")];
  expect(one({ messages })).toEqual({ kind: "chat", messages: messages.slice(0, 3) });
});

test("arrays and lines are read alike", () => {
  const records = [{ prompt: "a" }, { text: "b" }];
  const lines = `${records.map((record) => JSON.stringify(record)).join("\n")}\n`;
  expect(parsePrompts(lines, "x")).toEqual(parsePrompts(JSON.stringify(records), "x"));
});

test.each([
  ['{"prompt": "a"}\n{', "x, line 2: is not JSON"],
  ['{"prompt": "a"}\n\n{"prompt": "a"}', "x, line 2: is empty"],
  ['[{"prompt": "a"}, {"prompt": " "}]', "x, record 1: 'prompt' is empty"],
  ['[{"output": "a"}]', "x, record 0: has none of messages, "],
  ['{"messages": [{"role": "assistant", "content": "a"}]}', "x, line 1: has nothing but answers"],
  ['{"instruction": "", "input": " "}', "x, line 1: 'instruction' is empty"],
  ["[]", "x: there are no prompts"],
  ["", "x, line 1: is empty"],
])("%j is refused with its place", (content, message) => {
  expect(() => parsePrompts(content, "x")).toThrow(message);
});
