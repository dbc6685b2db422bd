import { BYTE_OF_CHARACTER } from "../byte-level.ts";

/** Frequent English pairs, and pieces of multi-byte characters: é, €, ‚, and half an emoji. */
const MERGES = [
  ..."Ġ t|h e|i n|Ġ a|e r|o n|r e|Ġt he|Ġ s|a t|e n|Ġ w|o r|Ġ c|i t|o u|a n|i s|n d|Ġ b".split("|"),
  ..."Ġ f|e s|Ġ m|Ġ p|in g|Ġ o|l l|Ġ d|e d|Ġ h|a r|Ġa n|Ġan d|Ġ in|Ġt o|Ġ l|o w|l e|v e".split("|"),
  "Ã ©",
  "â Ĥ",
  "âĤ ¬",
  "ð Ł",
  "ðŁ ĺ",
];

/** Ids 0, 1 and 2 are what the tiny test models' configs call padding, beginning and end. */
export const TINY_SPECIAL_TOKENS = ["<|pad|>", "<|im_start|>", "<|im_end|>"];

/** ChatML, as SmolLM2 has it, with a default system message. */
export const TINY_CHAT_TEMPLATE =
  "{% for message in messages %}{% if loop.first and messages[0]['role'] != 'system' %}" +
  "{{ '<|im_start|>system\nBe brief.<|im_end|>\n' }}{% endif %}" +
  "{% if message['content'] == 'refuse me' %}{{ raise_exception('this text is refused') }}{% endif %}" +
  "{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>' + '\n'}}{% endfor %}" +
  "{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}";

/**
 * A byte-level BPE tokenizer for a vocabulary of 320: 3 special tokens, 256 bytes, some merges; the last ids stay unused.
 * @returns contents of tokenizer.json and tokenizer_config.json
 */
export function tinyTokenizer(): { json: object; config: object } {
  const characters = [...BYTE_OF_CHARACTER].sort(([, a], [, b]) => a - b).map(([character]) => character);
  const entries = [...TINY_SPECIAL_TOKENS, ...characters, ...MERGES.map((merge) => merge.replace(" ", ""))];
  const byteLevel = { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true };
  return {
    json: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: TINY_SPECIAL_TOKENS.map((content, id) => ({
        id,
        content,
        single_word: false,
        lstrip: false,
        rstrip: false,
        normalized: false,
        special: true,
      })),
      normalizer: null,
      pre_tokenizer: byteLevel,
      post_processor: null,
      decoder: byteLevel,
      model: {
        type: "BPE",
        dropout: null,
        unk_token: null,
        fuse_unk: false,
        byte_fallback: false,
        ignore_merges: false,
        vocab: Object.fromEntries(entries.map((entry, id) => [entry, id])),
        merges: MERGES,
      },
    },
    config: {
      tokenizer_class: "GPT2Tokenizer",
      bos_token: "<|im_start|>",
      eos_token: "<|im_end|>",
      pad_token: "<|pad|>",
      chat_template: TINY_CHAT_TEMPLATE,
      model_max_length: 256,
    },
  };
}
