import { z } from "zod";
import { CheckpointError } from "../checkpoint-error.ts";
import { PRE_TOKENIZERS } from "./pre-tokenizers.ts";
import { sentencePieceMerges } from "./sentencepiece-merges.ts";

/** A tokenizer in Hugging Face's form. */
export interface RebuiltTokenizer {
  /** Content of tokenizer.json. */
  json: object;
  /** Content of tokenizer_config.json. */
  config: object;
  bosTokenId: number | null;
  eosTokenIds: number[];
}

const TOKEN_TYPE = { unknown: 2, control: 3, userDefined: 4 } as const;
const SPACE = "\u2581";

const TokenId = z.int().min(0).optional();
const TokenizerMetadata = z.object({
  "tokenizer.ggml.model": z.string(),
  "tokenizer.ggml.pre": z.string().default("default"),
  "tokenizer.ggml.tokens": z.array(z.string()).min(1),
  "tokenizer.ggml.token_type": z.array(z.int()).optional(),
  "tokenizer.ggml.scores": z.array(z.number()).optional(),
  "tokenizer.ggml.merges": z.array(z.string()).optional(),
  "tokenizer.ggml.bos_token_id": TokenId,
  "tokenizer.ggml.eos_token_id": TokenId,
  "tokenizer.ggml.eot_token_id": TokenId,
  "tokenizer.ggml.eom_token_id": TokenId,
  "tokenizer.ggml.unknown_token_id": TokenId,
  "tokenizer.ggml.padding_token_id": TokenId,
  "tokenizer.ggml.add_bos_token": z.boolean().optional(),
  "tokenizer.ggml.add_eos_token": z.boolean().optional(),
  "tokenizer.ggml.add_space_prefix": z.boolean().default(true),
  "tokenizer.chat_template": z.string().optional(),
});
type TokenizerMetadata = z.infer<typeof TokenizerMetadata>;

/** What differs between byte-level BPE and SentencePiece. */
interface Pipeline {
  normalizer: object | null;
  preTokenizer: object | null;
  decoder: object;
  model: object;
  addBos: boolean;
}

/**
 * Rebuilds a tokenizer from GGUF metadata: byte-level BPE (`gpt2`) with the splits that `tokenizer.ggml.pre` names, or
 * SentencePiece BPE with byte fallback (`llama`).
 * @param path named in errors.
 * @throws CheckpointError for other tokenizers and for metadata that does not fit the vocabulary.
 */
export function rebuildTokenizer(path: string, metadata: unknown, vocabSize: number): RebuiltTokenizer {
  const bad = (reason: string) => new CheckpointError(path, reason);
  const result = TokenizerMetadata.safeParse(metadata);
  if (!result.success) {
    const issue = result.error.issues[0];
    throw bad(`metadata '${issue?.path.join(".")}': ${issue?.message}`);
  }
  const m = result.data;
  const tokens = m["tokenizer.ggml.tokens"];
  if (tokens.length > vocabSize) throw bad(`has ${tokens.length} tokens, but embeddings for ${vocabSize}`);
  const types = m["tokenizer.ggml.token_type"] ?? [];
  const id = (key: keyof TokenizerMetadata & `${string}_token_id`): number | undefined => {
    const value = m[key];
    if (value !== undefined && value >= tokens.length) throw bad(`metadata '${key}': there is no token ${value}`);
    return value;
  };
  const bos = id("tokenizer.ggml.bos_token_id");
  const eos = id("tokenizer.ggml.eos_token_id");
  const unknown = id("tokenizer.ggml.unknown_token_id");
  const padding = id("tokenizer.ggml.padding_token_id");
  const ends = [eos, id("tokenizer.ggml.eot_token_id"), id("tokenizer.ggml.eom_token_id")];
  const token = (index: number | undefined) => (index === undefined ? null : (tokens[index] ?? null));

  const pipeline = buildPipeline(m, token(unknown), bad);
  const addBos = m["tokenizer.ggml.add_bos_token"] ?? pipeline.addBos;
  const addEos = m["tokenizer.ggml.add_eos_token"] ?? false;
  return {
    json: {
      version: "1.0",
      truncation: null,
      padding: null,
      added_tokens: addedTokens(tokens, types),
      normalizer: pipeline.normalizer,
      pre_tokenizer: pipeline.preTokenizer,
      post_processor: postProcessor(addBos ? token(bos) : null, addEos ? token(eos) : null, bos, eos),
      decoder: pipeline.decoder,
      model: pipeline.model,
    },
    config: {
      tokenizer_class: "PreTrainedTokenizerFast",
      clean_up_tokenization_spaces: false,
      ...withoutNulls({
        bos_token: token(bos),
        eos_token: token(eos),
        unk_token: token(unknown),
        pad_token: token(padding),
        chat_template: m["tokenizer.chat_template"] ?? null,
      }),
    },
    bosTokenId: bos ?? null,
    eosTokenIds: [...new Set(ends.filter((end) => end !== undefined))],
  };
}

function buildPipeline(
  m: TokenizerMetadata,
  unknownToken: string | null,
  bad: (reason: string) => CheckpointError,
): Pipeline {
  const model = m["tokenizer.ggml.model"];
  switch (model) {
    case "gpt2":
      return byteLevelPipeline(m, bad);
    case "llama":
      return sentencePiecePipeline(m, unknownToken, bad);
    default:
      throw bad(`the tokenizer '${model}' is not supported; supported are gpt2 and llama`);
  }
}

function byteLevelPipeline(m: TokenizerMetadata, bad: (reason: string) => CheckpointError): Pipeline {
  const name = m["tokenizer.ggml.pre"];
  const pre = PRE_TOKENIZERS.get(name);
  if (!pre) {
    throw bad(`the pre-tokenizer '${name}' is not supported; supported are ${[...PRE_TOKENIZERS.keys()].join(", ")}`);
  }
  const merges = m["tokenizer.ggml.merges"];
  if (!merges) throw bad("metadata 'tokenizer.ggml.merges' is missing");
  const pairs = merges.map((merge) => {
    // A token may begin with the separator.
    const at = merge.indexOf(" ", 1);
    if (at < 0) throw bad(`metadata 'tokenizer.ggml.merges': '${merge}' is not a pair`);
    return [merge.slice(0, at), merge.slice(at + 1)];
  });
  return {
    normalizer: null,
    preTokenizer: pre.config,
    decoder: { type: "ByteLevel", add_prefix_space: false, trim_offsets: true, use_regex: true },
    model: bpe(m["tokenizer.ggml.tokens"], pairs, { ignore_merges: pre.ignoreMerges }),
    addBos: pre.addBos,
  };
}

function sentencePiecePipeline(
  m: TokenizerMetadata,
  unknownToken: string | null,
  bad: (reason: string) => CheckpointError,
): Pipeline {
  const tokens = m["tokenizer.ggml.tokens"];
  const scores = m["tokenizer.ggml.scores"];
  const types = m["tokenizer.ggml.token_type"];
  if (scores?.length !== tokens.length) throw bad("metadata 'tokenizer.ggml.scores' does not fit the tokens");
  if (types?.length !== tokens.length) throw bad("metadata 'tokenizer.ggml.token_type' does not fit the tokens");
  const skip = new Set(types.flatMap((type, id) => (isAdded(type) || type === TOKEN_TYPE.unknown ? [id] : [])));
  const toMarker = { type: "Replace", pattern: { String: " " }, content: SPACE };
  const fromMarker = { type: "Replace", pattern: { String: SPACE }, content: " " };
  const decoders = [fromMarker, { type: "ByteFallback" }, { type: "Fuse" }];
  const prefix = m["tokenizer.ggml.add_space_prefix"];
  return {
    normalizer: {
      type: "Sequence",
      normalizers: prefix ? [{ type: "Prepend", prepend: SPACE }, toMarker] : [toMarker],
    },
    preTokenizer: null,
    decoder: {
      type: "Sequence",
      decoders: prefix ? [...decoders, { type: "Strip", content: " ", start: 1, stop: 0 }] : decoders,
    },
    model: bpe(tokens, sentencePieceMerges(tokens, scores, skip), {
      unk_token: unknownToken,
      fuse_unk: true,
      byte_fallback: true,
    }),
    addBos: true,
  };
}

function bpe(tokens: readonly string[], merges: readonly (readonly string[])[], options: object): object {
  return {
    type: "BPE",
    dropout: null,
    unk_token: null,
    continuing_subword_prefix: null,
    end_of_word_suffix: null,
    fuse_unk: false,
    byte_fallback: false,
    ignore_merges: false,
    ...options,
    // The first of two equal tokens wins, as in llama.cpp; fromEntries keeps a token named __proto__.
    vocab: Object.fromEntries(tokens.map((token, id) => [token, id] as const).reverse()),
    merges,
  };
}

function isAdded(type: number | undefined): boolean {
  return type === TOKEN_TYPE.control || type === TOKEN_TYPE.userDefined;
}

function addedTokens(tokens: readonly string[], types: readonly number[]): object[] {
  return tokens.flatMap((content, id) => {
    const special = types[id] === TOKEN_TYPE.control || types[id] === TOKEN_TYPE.unknown;
    if (!special && types[id] !== TOKEN_TYPE.userDefined) return [];
    return [{ id, content, single_word: false, lstrip: false, rstrip: false, normalized: false, special }];
  });
}

/** Puts the beginning- and end-of-sequence tokens around a text, where the model wants them. */
function postProcessor(
  bosToken: string | null,
  eosToken: string | null,
  bos: number | undefined,
  eos: number | undefined,
): object {
  const text = (id: string, type_id: number) => ({ Sequence: { id, type_id } });
  const special = (id: string, type_id: number) => ({ SpecialToken: { id, type_id } });
  const around = (sequence: string, type: number) => [
    ...(bosToken === null ? [] : [special(bosToken, type)]),
    text(sequence, type),
    ...(eosToken === null ? [] : [special(eosToken, type)]),
  ];
  const entries: [string, object][] = [];
  if (bosToken !== null) entries.push([bosToken, { id: bosToken, ids: [bos], tokens: [bosToken] }]);
  if (eosToken !== null) entries.push([eosToken, { id: eosToken, ids: [eos], tokens: [eosToken] }]);
  return {
    type: "TemplateProcessing",
    single: around("A", 0),
    pair: [...around("A", 0), ...around("B", 1)],
    special_tokens: Object.fromEntries(entries),
  };
}

function withoutNulls(values: Record<string, string | null>): object {
  return Object.fromEntries(Object.entries(values).filter(([, value]) => value !== null));
}
