import { Tokenizer } from "@huggingface/tokenizers";
import { expect, test } from "vitest";
import { rebuildTokenizer } from "./rebuild-tokenizer.ts";
import { sentencePieceMerges } from "./sentencepiece-merges.ts";

/** GPT-2's characters for the 256 bytes, in byte order; written from its definition. */
function byteCharacters(): string[] {
  const printable = (byte: number) => (byte > 32 && byte < 127) || (byte > 160 && byte !== 173);
  let next = 256;
  return Array.from({ length: 256 }, (_, byte) => String.fromCharCode(printable(byte) ? byte : next++));
}

const SPACE = "\u0120";
const merges = ["h e", "l l", `${SPACE} w`, "he ll", "hell o", "1 2", "12 3", "4 5"];
const tokens = [
  "<|endoftext|>",
  "<|im_start|>",
  ...byteCharacters(),
  ...merges.map((merge) => merge.replace(" ", "")),
  "[tool]",
];

const byteLevel = (pre: string | undefined, more: object = {}) => ({
  "tokenizer.ggml.model": "gpt2",
  ...(pre === undefined ? {} : { "tokenizer.ggml.pre": pre }),
  "tokenizer.ggml.tokens": tokens,
  "tokenizer.ggml.token_type": tokens.map((token) => (token.startsWith("<|") ? 3 : token === "[tool]" ? 4 : 1)),
  "tokenizer.ggml.merges": merges,
  "tokenizer.ggml.bos_token_id": 1,
  "tokenizer.ggml.eos_token_id": 0,
  ...more,
});

function encode(metadata: object, text: string): string[] {
  const { json, config } = rebuildTokenizer("model.gguf", metadata, 1000);
  // Through JSON, as a checkpoint stores it.
  return new Tokenizer(JSON.parse(JSON.stringify(json)), config).encode(text).tokens;
}

function roundTrip(metadata: object, text: string): string {
  const { json, config } = rebuildTokenizer("model.gguf", metadata, 1000);
  const tokenizer = new Tokenizer(JSON.parse(JSON.stringify(json)), config);
  return tokenizer.decode(tokenizer.encode(text, { add_special_tokens: false }).ids);
}

test.each([
  ["smollm", ["1", "2", "3", "4", "5", SPACE, "1", "2"]],
  ["gpt-2", ["123", "45", SPACE, "12"]],
  ["default", ["123", "45", SPACE, "12"]],
  ["llama-bpe", ["<|im_start|>", "123", "45", SPACE, "12"]],
])("%s splits digits its way", (pre, expected) => {
  expect(encode(byteLevel(pre), "12345 12")).toEqual(expected);
});

test("a file without a pre-tokenizer is split as llama.cpp would", () => {
  expect(encode(byteLevel(undefined), "123451 hello")).toEqual(encode(byteLevel("default"), "123451 hello"));
});

test("control and user-defined tokens stand for themselves in a text; only the former are special", () => {
  expect(encode(byteLevel("smollm"), "hello[tool]<|im_start|>he")).toEqual(["hello", "[tool]", "<|im_start|>", "he"]);
  const { json } = rebuildTokenizer("model.gguf", byteLevel("smollm"), 1000);
  expect(json).toMatchObject({
    added_tokens: [
      { id: 0, content: "<|endoftext|>", special: true },
      { id: 1, content: "<|im_start|>", special: true },
      { content: "[tool]", special: false, normalized: false },
    ],
  });
});

test("any text comes back, byte by byte where it must", () => {
  for (const pre of ["smollm", "gpt-2", "default", "llama-bpe"]) {
    const text = "  hello world\n\n\t3,14² naïve 漢字 👋🏽 x'll";
    expect(roundTrip(byteLevel(pre, { "tokenizer.ggml.add_bos_token": false }), text)).toBe(text);
  }
});

test("begin and end tokens are added where the metadata or the model's kind says so", () => {
  const both = { "tokenizer.ggml.add_bos_token": true, "tokenizer.ggml.add_eos_token": true };
  expect(encode(byteLevel("smollm", both), "he")).toEqual(["<|im_start|>", "he", "<|endoftext|>"]);
  expect(encode(byteLevel("smollm"), "he")).toEqual(["he"]);
  expect(encode(byteLevel("llama-bpe"), "he")).toEqual(["<|im_start|>", "he"]);
  expect(encode(byteLevel("llama-bpe", { "tokenizer.ggml.add_bos_token": false }), "he")).toEqual(["he"]);
});

test("the configuration names the special tokens and holds the chat template", () => {
  const metadata = byteLevel("smollm", { "tokenizer.chat_template": "{{ x }}", "tokenizer.ggml.eot_token_id": 5 });
  const { config, bosTokenId, eosTokenIds } = rebuildTokenizer("model.gguf", metadata, 1000);
  expect(config).toMatchObject({ bos_token: "<|im_start|>", eos_token: "<|endoftext|>", chat_template: "{{ x }}" });
  expect([bosTokenId, eosTokenIds]).toEqual([1, [0, 5]]);
});

test.each<[object, string]>([
  [byteLevel("tekken"), "the pre-tokenizer 'tekken' is not supported; supported are default, gpt-2"],
  [byteLevel("smollm", { "tokenizer.ggml.model": "t5" }), "the tokenizer 't5' is not supported"],
  [byteLevel("smollm", { "tokenizer.ggml.model": undefined }), "metadata 'tokenizer.ggml.model'"],
  [byteLevel("smollm", { "tokenizer.ggml.merges": undefined }), "metadata 'tokenizer.ggml.merges' is missing"],
  [
    byteLevel("smollm", { "tokenizer.ggml.merges": ["alone"] }),
    "metadata 'tokenizer.ggml.merges': 'alone' is not a pair",
  ],
  [
    byteLevel("smollm", { "tokenizer.ggml.eos_token_id": 999 }),
    "metadata 'tokenizer.ggml.eos_token_id': there is no token 999",
  ],
  [byteLevel("smollm", { "tokenizer.ggml.tokens": [] }), "metadata 'tokenizer.ggml.tokens'"],
])("refuses %#", (metadata, reason) => {
  expect(() => rebuildTokenizer("model.gguf", metadata, 1000)).toThrow(`model.gguf: ${reason}`);
});

const MARK = "\u2581";
const pieces: [piece: string, score: number, type: number][] = [
  ["<unk>", 0, 2],
  ["<s>", 0, 3],
  ["</s>", 0, 3],
  ...Array.from({ length: 256 }, (_, byte): [string, number, number] => [
    `<0x${byte.toString(16).toUpperCase().padStart(2, "0")}>`,
    0,
    6,
  ]),
  ["he", -1, 1],
  ["ll", -2, 1],
  [`${MARK}he`, -3, 1],
  [`${MARK}hello`, -4, 1],
  ["llo", -5, 1],
  ...[MARK, "h", "e", "l", "o", "w"].map((piece, i): [string, number, number] => [piece, -100 - i, 1]),
];
const sentencePiece = (more: object = {}) => ({
  "tokenizer.ggml.model": "llama",
  "tokenizer.ggml.tokens": pieces.map(([piece]) => piece),
  "tokenizer.ggml.scores": pieces.map(([, score]) => score),
  "tokenizer.ggml.token_type": pieces.map(([, , type]) => type),
  "tokenizer.ggml.bos_token_id": 1,
  "tokenizer.ggml.eos_token_id": 2,
  "tokenizer.ggml.unknown_token_id": 0,
  ...more,
});

test("SentencePiece merges by score, with a leading space, byte fallback and a begin token", () => {
  expect(encode(sentencePiece(), "hello")).toEqual(["<s>", `${MARK}hello`]);
  expect(encode(sentencePiece(), "hell w")).toEqual(["<s>", `${MARK}he`, "ll", MARK, "w"]);
  expect(encode(sentencePiece(), "hé")).toEqual(["<s>", MARK, "h", "<0xC3>", "<0xA9>"]);
  const bare = sentencePiece({ "tokenizer.ggml.add_space_prefix": false, "tokenizer.ggml.add_bos_token": false });
  expect(encode(bare, "hell")).toEqual(["he", "ll"]);
  for (const text of ["hello wélh", "  hello", "漢字"]) {
    expect(roundTrip(sentencePiece(), text)).toBe(text);
    expect(roundTrip(bare, text)).toBe(text);
  }
});

test("SentencePiece needs scores and types for every token", () => {
  expect(() => rebuildTokenizer("m.gguf", sentencePiece({ "tokenizer.ggml.scores": [1] }), 1000)).toThrow("scores");
  expect(() => rebuildTokenizer("m.gguf", sentencePiece({ "tokenizer.ggml.token_type": [1] }), 1000)).toThrow(
    "token_type",
  );
});

test("merges: best score first, then the longer left part, as Hugging Face's converter orders them", () => {
  const vocabulary = ["a", "b", "ab", "aba", "ba"];
  expect(sentencePieceMerges(vocabulary, [-9, -9, -1, -2, -2], new Set())).toEqual([
    ["a", "b"],
    ["ab", "a"],
    ["a", "ba"],
    ["b", "a"],
  ]);
  expect(sentencePieceMerges(vocabulary, [-9, -9, -1, -2, -2], new Set([4]))).toEqual([
    ["a", "b"],
    ["ab", "a"],
  ]);
});
