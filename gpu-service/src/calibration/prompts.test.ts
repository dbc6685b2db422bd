import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import { expect, test } from "vitest";
import { temporaryFolder } from "../checkpoint/testing/temporary-folder.ts";
import { tinyTokenizer } from "../text/testing/tiny-tokenizer.ts";
import { TextModel } from "../text/text-model.ts";
import { alpacaPrompt } from "../train/data/encode-record.ts";
import { type PromptOptions, readPrompts } from "./prompts.ts";

const root = temporaryFolder();
const { json, config } = tinyTokenizer();
const text = TextModel.from(json, config);
const options: PromptOptions = { text, template: "alpaca", all: false, maxLength: 1000, vocabulary: 320 };
const alpaca = (instruction: string, input = "") => text.encode(alpacaPrompt(instruction, input));
const chat = (content: string) => text.encode(text.renderChat([{ role: "user", content }]), false);

async function file(name: string, records: readonly unknown[], array = false): Promise<string> {
  const path = join(root, name);
  await writeFile(path, array ? JSON.stringify(records) : records.map((record) => JSON.stringify(record)).join("\n"));
  return path;
}

test("of records with responses only those are used that fathom train holds out", async () => {
  const records = Array.from({ length: 120 }, (_, i) => ({
    instruction: `Say ${i}`,
    input: i === 50 ? "x" : "",
    output: "y",
  }));
  const path = await file("alpaca.json", records, true);
  const { prompts, data } = await readPrompts([path], options);
  expect(prompts).toEqual([alpaca("Say 0"), alpaca("Say 50", "x"), alpaca("Say 100")]);
  expect(data).toMatchObject([{ file: "alpaca.json", prompts: 3 }]);
  expect((await readPrompts([path], { ...options, all: true })).prompts).toHaveLength(120);
});

test("each kind of record becomes the prompt that it is served as", async () => {
  const path = await file("kinds.jsonl", [
    {
      messages: [
        { role: "user", content: "a" },
        { role: "assistant", content: "b" },
      ],
    },
    { prompt: "Once", completion: " upon" },
    { prompt_tokens: [5, 6], completion_tokens: [7] },
    { instruction: "Do it", input: "", output: "done" },
    { instruction: " ", output: "left out" },
    { id: "koala_0", prompt: "List ten films" },
    { question_id: 1, text: "How are you?" },
    { idx: 1, Skill: "Math", Instruction: "What is 1 + 1?" },
    { instruction: "Rewrite", instances: [{ input: "a", output: "b" }] },
    { motivation_app: "Meet", instruction: "Summarize", input: "this" },
    { context: "Question: Who?\nAnswer:", answer: "I", aliases: [] },
  ]);
  const { prompts } = await readPrompts([path], { ...options, all: true, template: "chat" });
  expect(prompts).toEqual([
    chat("a"),
    text.encode("Once"),
    [5, 6],
    chat("Do it"),
    chat("List ten films"),
    chat("How are you?"),
    chat("What is 1 + 1?"),
    chat("Rewrite"),
    chat("Summarize\n\nthis"),
    text.encode("Question: Who?\nAnswer:"),
  ]);
});

test("prompts that are too long or there already are left out", async () => {
  const one = await file("one.jsonl", [{ text: "Hi" }, { text: "Hi" }, { text: "long ".repeat(300) }]);
  const two = await file("two.jsonl", [{ prompt: "Hi" }, { prompt: "Ho" }]);
  const { prompts, data, leftOut } = await readPrompts([one, two], options);
  expect(prompts).toEqual([alpaca("Hi"), alpaca("Ho")]);
  expect(data.map(({ prompts: count }) => count)).toEqual([1, 1]);
  expect(leftOut).toBe(3);
});

test.each<[string, unknown, Partial<PromptOptions>, string]>([
  ["no prompt", { question: "?" }, {}, "bad.jsonl, line 1: has no prompt"],
  ["an empty prompt", { text: "  " }, {}, "bad.jsonl, line 1: has no prompt"],
  ["a malformed record", { prompt_tokens: ["a"], completion_tokens: [1] }, {}, "bad.jsonl, line 1: 'prompt_tokens.0'"],
  ["a foreign token", { prompt_tokens: [320], completion_tokens: [1] }, {}, "line 1: a token id lies outside"],
  ["a text without a tokenizer", { text: "Hi" }, { text: undefined }, "line 1: the checkpoint has no tokenizer"],
])("%s is named with its line", async (_, record, changes, message) => {
  const path = await file("bad.jsonl", [record]);
  await expect(readPrompts([path], { ...options, ...changes })).rejects.toThrow(message);
});
