/** How a `tokenizer.ggml.pre` splits text before byte-pair merging, as tokenizer.json says it. */
export interface PreTokenizer {
  config: object;
  /** A piece that is a whole vocabulary entry is taken as it is. */
  ignoreMerges: boolean;
  /** Whether a beginning-of-sequence token is added when the metadata does not say. */
  addBos: boolean;
}

const GPT2 = "'s|'t|'re|'ve|'m|'ll|'d| ?\\p{L}+| ?\\p{N}+| ?[^\\s\\p{L}\\p{N}]+|\\s+(?!\\S)|\\s+";
const LLAMA3 =
  "(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\\r\\n\\p{L}\\p{N}]?\\p{L}+|\\p{N}{1,3}| ?[^\\s\\p{L}\\p{N}]+[\\r\\n]*|\\s*[\\r\\n]+|\\s+(?!\\S)|\\s+";

const BYTES = byteLevel(false);
const GPT2_STYLE: PreTokenizer = { config: byteLevel(true), ignoreMerges: false, addBos: false };
const LLAMA3_STYLE: PreTokenizer = { config: sequence(split(LLAMA3), BYTES), ignoreMerges: true, addBos: true };
/** Every digit alone. Hugging Face writes `Digits`, whose JavaScript port knows ASCII digits only; this is what Rust does. */
const DIGITS_STYLE: PreTokenizer = {
  config: sequence(split("\\p{N}"), byteLevel(true)),
  ignoreMerges: false,
  addBos: false,
};
/** What llama.cpp falls back to. */
const DEFAULT_STYLE: PreTokenizer = {
  config: sequence(split("[\\p{P}\\$\\+<=>\\^~\\|]+"), split(GPT2), split("\\p{N}+"), split("[0-9][0-9][0-9]"), BYTES),
  ignoreMerges: false,
  addBos: false,
};

/** By `tokenizer.ggml.pre`; the splits are those of llama.cpp's `llama-vocab.cpp`. */
export const PRE_TOKENIZERS: ReadonlyMap<string, PreTokenizer> = new Map([
  ["default", DEFAULT_STYLE],
  ["gpt-2", GPT2_STYLE],
  ["smollm", DIGITS_STYLE],
  ["starcoder", DIGITS_STYLE],
  ["refact", DIGITS_STYLE],
  ["llama-bpe", LLAMA3_STYLE],
  ["llama3", LLAMA3_STYLE],
  ["llama-v3", LLAMA3_STYLE],
]);

function byteLevel(useRegex: boolean): object {
  return { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: useRegex };
}

function split(regex: string): object {
  return { type: "Split", pattern: { Regex: regex }, behavior: "Isolated", invert: false };
}

function sequence(...pretokenizers: object[]): object {
  return { type: "Sequence", pretokenizers };
}
