import { writeFile } from "node:fs/promises";
import { join } from "node:path";
import fc from "fast-check";
import { expect, test } from "vitest";
import { temporaryFolder } from "../../checkpoint/testing/temporary-folder.ts";
import { tinyTokenizer } from "../../text/testing/tiny-tokenizer.ts";
import { TextModel } from "../../text/text-model.ts";
import { IGNORED } from "../batch.ts";
import { type DatasetOptions, epochBatches, HELD_OUT_EVERY, loadDataset, padded } from "./dataset.ts";
import { alpacaPrompt, encodeRecord } from "./encode-record.ts";

const root = temporaryFolder();
const { json, config } = tinyTokenizer();
const text = TextModel.from(json, config);
const END = 2;
const options: DatasetOptions = {
  text,
  endToken: END,
  template: "chat",
  maxLength: 200,
  vocabulary: 320,
  skipEmpty: false,
};

let files = 0;
async function file(content: unknown): Promise<string> {
  const path = join(root, `data-${files++}.json`);
  await writeFile(path, typeof content === "string" ? content : JSON.stringify(content));
  return path;
}

/** What is learnt of an example, as text. */
function learnt(labels: Int32Array): string {
  const detokenizer = text.detokenizer({ continues: true });
  const ids = [...labels].filter((label) => label !== IGNORED);
  return ids.map((id) => (id === END ? "¶" : detokenizer.push(id))).join("");
}

const alpaca = { kind: "alpaca", instruction: "Name a whale.", input: "", output: "The orca." } as const;

test("only the response and the end token are learnt, whatever the template", () => {
  for (const template of ["chat", "alpaca"] as const) {
    const { tokens, labels } = encodeRecord(alpaca, "here", { ...options, template });
    expect(learnt(labels)).toBe("The orca.¶");
    expect(tokens.length).toBe(labels.length);
    expect(tokens.at(-1)).toBe(END);
  }
});

test("the tokens are those that the model meets when it serves", async () => {
  const { tokens, labels } = encodeRecord(alpaca, "here", options);
  const prompt = await text.tokens([{ role: "user", content: "Name a whale." }]);
  expect([...tokens.subarray(0, prompt.length)]).toEqual(prompt);
  expect(labels.subarray(0, prompt.length).every((label) => label === IGNORED)).toBe(true);
});

test("the Alpaca prompt is the papers', with and without an input", () => {
  expect(alpacaPrompt("Sing.", "")).toBe(
    "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n### Instruction:\nSing.\n\n### Response:",
  );
  expect(alpacaPrompt("Sing.", "la")).toContain("### Instruction:\nSing.\n\n### Input:\nla\n\n### Response:");
});

test("every answer of a conversation is learnt, and nothing that others say", () => {
  const messages = [
    { role: "user" as const, content: "one" },
    { role: "assistant" as const, content: "two" },
    { role: "user" as const, content: "three" },
    { role: "assistant" as const, content: "four" },
  ];
  const { tokens, labels } = encodeRecord({ kind: "chat", messages }, "here", options);
  expect(learnt(labels)).toBe("two¶four¶");
  const whole = text.encode(`${text.renderChat(messages.slice(0, 3))}four<|im_end|>`, false);
  expect([...tokens]).toEqual(whole);
});

test("every fiftieth record is held out", async () => {
  const records = Array.from({ length: 120 }, (_, i) => ({ prompt_tokens: [5], completion_tokens: [10 + i, END] }));
  const { train, heldOut } = await loadDataset(await file(records), options);
  expect(heldOut.map(({ tokens }) => tokens[1])).toEqual([0, 50, 100].map((index) => 10 + index));
  expect(train.length).toBe(120 - 3);
  expect(HELD_OUT_EVERY).toBe(50);
});

test("long records are cut, and left out when no response is left", async () => {
  const line = (prompt: number, completion: number) =>
    JSON.stringify({ prompt_tokens: Array(prompt).fill(5), completion_tokens: Array(completion).fill(6) });
  const path = await file([line(1, 1), line(3, 9), line(30, 2), line(2, 2)].join("\n"));
  const { train, truncated, dropped } = await loadDataset(path, { ...options, maxLength: 6 });
  expect(train.map(({ tokens }) => tokens.length)).toEqual([6, 4]);
  expect({ truncated, dropped }).toEqual({ truncated: 1, dropped: 1 });
});

test("records whose response is short can be left out of training, never out of the held-out set", async () => {
  const record = (i: number) => ({ prompt_tokens: [5], completion_tokens: Array(1 + (i % 4)).fill(10) });
  const path = await file(Array.from({ length: 100 }, (_, i) => record(i)));
  const { train, heldOut, dropped } = await loadDataset(path, { ...options, minResponse: 3 });
  expect(new Set(train.map(({ tokens }) => tokens.length))).toEqual(new Set([4, 5]));
  expect(heldOut.map(({ tokens }) => tokens.length)).toEqual([2, 4]);
  expect(train.length + heldOut.length + dropped).toBe(100);
});

test.each([
  ['{"prompt": "a", "completion": "b"}\n\n{"prompt": "a", "completion": "b"}', /data-\d+\.json, line 2: is empty/],
  ['{"prompt": "a", "completion": "b"}\n{"prompt"', /line 2: is not JSON/],
  ['{"prompt": "a"}', /line 1: 'completion' /],
  [
    '[{"instruction": "a", "input": "", "output": "b"}, {"instruction": "a", "output": " "}]',
    /data-\d+\.json, line 1 \(record 1\): 'output' is empty/,
  ],
  [
    '[\n {"instruction": "a\\"]", "output": "b"},\n {"instruction": "a",\n  "output": " "}\n]',
    /line 3 \(record 1\): 'output' is empty/,
  ],
  ['[\n {"prompt": "a",\n  "completion": "b"},\n {"prompt": }\n]', /line 4 \(record 1\): is not JSON/],
  ['[{"text": "a"}]', /line 1 \(record 0\): has none of messages, instruction, prompt, prompt_tokens/],
  [
    '[{"messages": [{"role": "user", "content": "a"}]}]',
    /record 0\): 'messages' the last message must be the assistant/,
  ],
  ['[{"prompt_tokens": [1], "completion_tokens": [320]}]', /record 0\): a token id lies outside the vocabulary of 320/],
  ["[1", /data-\d+\.json: is not JSON/],
  ['[{"prompt": "a", "completion": "b"},\n]', /line 2 \(record 1\): is not JSON/],
  ["[]", /there are no records/],
  ['[{"prompt": "a", "completion": "b"}]', /nothing is left to train on/],
])("%s is refused by name", async (content, message) => {
  await expect(loadDataset(await file(content), options)).rejects.toThrow(message);
});

test("empty records can be left out, without moving the others' places", async () => {
  const record = (i: number) => ({ instruction: "Sing.", input: "", output: i === 20 ? "" : `la ${i}` });
  const path = await file(Array.from({ length: 60 }, (_, i) => record(i)));
  const { train, heldOut, dropped } = await loadDataset(path, { ...options, skipEmpty: true });
  expect({ train: train.length, heldOut: heldOut.length, dropped }).toEqual({ train: 57, heldOut: 2, dropped: 1 });
  expect(learnt(heldOut[1]?.labels ?? new Int32Array())).toBe("la 50¶");
});

test("an epoch visits every example once, in an order of its own, with little padding", () => {
  fc.assert(
    fc.property(
      fc.array(fc.integer({ min: 2, max: 300 }), { minLength: 1, maxLength: 200 }),
      fc.nat(),
      (lengths, seed) => {
        const examples = lengths.map((n) => ({ tokens: new Int32Array(n), labels: new Int32Array(n) }));
        const batches = epochBatches(examples, 4, seed, 0);
        expect(batches.flat().sort((x, y) => x - y)).toEqual([...examples.keys()]);
        expect(epochBatches(examples, 4, seed, 0)).toEqual(batches);
      },
    ),
  );
  const examples = Array.from({ length: 256 }, (_, i) => ({
    tokens: new Int32Array(2 + ((i * 97) % 200)),
    labels: new Int32Array(2),
  }));
  expect(epochBatches(examples, 4, 1, 0)).not.toEqual(epochBatches(examples, 4, 1, 1));
  const sizes = epochBatches(examples, 4, 1, 0).map((batch) => batch.map((i) => examples[i]?.tokens.length ?? 0));
  const spread = sizes.map((lengths) => Math.max(...lengths) - Math.min(...lengths));
  expect(Math.max(...spread)).toBeLessThan(30);
});

test("padding is neither read nor learnt", () => {
  const example = (n: number) => ({ tokens: new Int32Array(n).fill(9), labels: new Int32Array(n).fill(9) });
  const { rows, length, tokens, labels } = padded([example(3), example(5)]);
  expect([rows, length]).toEqual([2, 5]);
  expect([...labels.subarray(0, 5)]).toEqual([9, 9, 9, IGNORED, IGNORED]);
  expect([...tokens.subarray(5)]).toEqual([9, 9, 9, 9, 9]);
});
