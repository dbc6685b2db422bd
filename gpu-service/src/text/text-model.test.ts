import { mkdtemp, rm, writeFile } from "node:fs/promises";
import { tmpdir } from "node:os";
import { join } from "node:path";
import { ApiError } from "@fathom/shared";
import { expect, onTestFinished, test } from "vitest";
import { CheckpointError } from "../checkpoint/checkpoint-error.ts";
import { tinyTokenizer } from "./testing/tiny-tokenizer.ts";
import { TextModel } from "./text-model.ts";

async function folder(files: Record<string, string>): Promise<string> {
  const dir = await mkdtemp(join(tmpdir(), "fathom-text-"));
  onTestFinished(() => rm(dir, { recursive: true }));
  for (const [name, content] of Object.entries(files)) await writeFile(join(dir, name), content);
  return dir;
}

const tiny = tinyTokenizer();
const model = TextModel.from(tiny.json, tiny.config);

test("a conversation is rendered up to where the answer begins", () => {
  expect(model.renderChat([{ role: "user", content: "Hi" }])).toBe(
    "<|im_start|>system\nBe brief.<|im_end|>\n<|im_start|>user\nHi<|im_end|>\n<|im_start|>assistant\n",
  );
});

test("a developer message is a system message, and text parts are joined", () => {
  const rendered = model.renderChat([
    { role: "developer", content: "Sing." },
    {
      role: "user",
      content: [
        { type: "text", text: "la " },
        { type: "text", text: "la" },
      ],
    },
  ]);
  expect(rendered).toBe(
    "<|im_start|>system\nSing.<|im_end|>\n<|im_start|>user\nla la<|im_end|>\n<|im_start|>assistant\n",
  );
});

test("the markers of a conversation become special tokens", async () => {
  const ids = await model.tokens([{ role: "user", content: "Hi" }]);
  expect(ids.filter((id) => id === 1)).toHaveLength(3);
  expect(ids.filter((id) => id === 2)).toHaveLength(2);
});

test("a conversation that the template refuses is the client's error, with the template's reason", () => {
  const refused = () => model.renderChat([{ role: "user", content: "refuse me" }]);
  expect(refused).toThrow(ApiError);
  expect(refused).toThrow(/this text is refused/);
});

test("without a chat template a conversation is refused and plain text still works", async () => {
  const plain = TextModel.from(tiny.json, {});
  expect(plain.hasChatTemplate).toBe(false);
  await expect(plain.tokens([{ role: "user", content: "Hi" }])).rejects.toThrow(/no chat template/);
  expect(plain.encode("the").length).toBeGreaterThan(0);
});

test("of several templates the one called default is used", () => {
  const templates = [
    { name: "tool_use", template: "tools" },
    { name: "default", template: "{{ bos_token }}default" },
  ];
  const config = { ...tiny.config, chat_template: templates, bos_token: { content: "<|im_start|>", lstrip: false } };
  expect(TextModel.from(tiny.json, config).renderChat([{ role: "user", content: "" }])).toBe("<|im_start|>default");
});

test("an ill-formed text is encoded as if its lone surrogates were U+FFFD", () => {
  expect(model.encode("a\ud800b")).toEqual(model.encode("a\ufffdb"));
});

test("a long text is encoded elsewhere, to the same tokens", async () => {
  const text = "the cat sat on 😀 ".repeat(2000);
  const [again, other] = await Promise.all([model.tokens(text), model.tokens(`${text}!`)]);
  expect(again).toEqual(model.encode(text));
  expect(other).toEqual(model.encode(`${text}!`));
});

test("long texts beyond those that may wait are refused", async () => {
  const text = "the cat sat on the mat ".repeat(2000);
  const results = await Promise.allSettled(Array.from({ length: 40 }, () => model.tokens(text)));
  const refused = results.filter((result) => result.status === "rejected");
  expect(refused).toHaveLength(8);
  expect(refused[0]?.reason).toMatchObject({ code: "overloaded", retryAfter: 5 });
});

test("a folder without a tokenizer has no text model", async () => {
  expect(await TextModel.load(await folder({}))).toBeUndefined();
});

test("a folder's tokenizer works without a config", async () => {
  const loaded = await TextModel.load(await folder({ "tokenizer.json": JSON.stringify(tiny.json) }));
  expect(loaded?.encode("the cat")).toEqual(model.encode("the cat"));
});

test.each([
  ["tokenizer.json", "{", "", /tokenizer\.json: is malformed: not JSON/],
  ["tokenizer.json", "[]", "{}", /tokenizer\.json: cannot be used/],
  ["tokenizer.json", JSON.stringify({ ...tiny.json, decoder: null }), "{}", /names no decoder/],
  [
    "tokenizer.json",
    JSON.stringify({ ...tiny.json, decoder: { type: "CTC" } }),
    "{}",
    /decoder 'CTC' is not supported/,
  ],
  ["tokenizer_config.json", JSON.stringify(tiny.json), "nope", /tokenizer_config\.json: is malformed: not JSON/],
  [
    "tokenizer_config.json",
    JSON.stringify(tiny.json),
    '{"chat_template": "{% if"}',
    /tokenizer_config\.json: cannot be/,
  ],
  ["tokenizer_config.json", JSON.stringify(tiny.json), '{"chat_template": 3}', /'chat_template'/],
])("a damaged %s is named with the reason (%#)", async (_, json, config, message) => {
  const dir = await folder({ "tokenizer.json": json, ...(config ? { "tokenizer_config.json": config } : {}) });
  await expect(TextModel.load(dir)).rejects.toThrow(CheckpointError);
  await expect(TextModel.load(dir)).rejects.toThrow(message);
});
