import * as library from "@huggingface/tokenizers";

/** The part of a tokenizer that is used here. */
export interface LibraryTokenizer {
  encode(text: string, options: { add_special_tokens: boolean }): { ids: number[] };
  decode(ids: number[], options: { skip_special_tokens: boolean; clean_up_tokenization_spaces: boolean }): string;
  id_to_token(id: number): string | undefined;
}

/** A decoder that treats every token alone. */
export interface LibraryDecoder {
  decode_chain(tokens: string[]): string[];
}

/**
 * The package's type declarations import without file extensions, which TypeScript does not resolve in an ES module; so the
 * types are stated here, once.
 */
export const { Tokenizer, ReplaceDecoder, StripDecoder } = library as unknown as {
  Tokenizer: new (tokenizerJson: object, tokenizerConfig: object) => LibraryTokenizer;
  ReplaceDecoder: new (config: object) => LibraryDecoder;
  StripDecoder: new (config: object) => LibraryDecoder;
};
