import { readFile } from "node:fs/promises";
import { join } from "node:path";
import { ApiError, type ChatMessage } from "@fathom/shared";
import { z } from "zod";
import { CheckpointError, isErrno } from "../checkpoint/checkpoint-error.ts";
import { ChatTemplate } from "./chat-template.ts";
import { buildStages } from "./decoder-stages.ts";
import { Detokenizer } from "./detokenizer.ts";
import { EncodeThread } from "./encode-thread.ts";
import { type LibraryTokenizer, Tokenizer } from "./tokenizers-library.ts";

const TOKENIZER_FILE = "tokenizer.json";
const CONFIG_FILE = "tokenizer_config.json";

/** A special token in tokenizer_config.json: its text, or an object that holds it. */
const SpecialToken = z.union([z.string(), z.object({ content: z.string() }).transform(({ content }) => content)]);

/** Texts of more UTF-16 units are encoded in a thread of their own; up to here it takes 0.1 s at worst. */
const LONG_TEXT = 16_384;

const SPECIAL_TOKENS = ["bos_token", "eos_token", "unk_token", "pad_token", "sep_token", "cls_token"] as const;

const TokenizerConfig = z.looseObject({
  chat_template: z.union([z.string(), z.array(z.object({ name: z.string(), template: z.string() }))]).nullish(),
  additional_special_tokens: z.array(SpecialToken).nullish(),
});

const TokenizerJson = z.looseObject({
  added_tokens: z.array(z.looseObject({ id: z.int(), content: z.string(), special: z.boolean().default(false) })),
  decoder: z.unknown(),
});

/** What a text decoder of one answer needs to know. */
export interface DetokenizerOptions {
  /** The answer continues the prompt's text: its leading space belongs to it. */
  continues: boolean;
}

/** The text side of a checkpoint: tokenizer and chat template, as Hugging Face's files describe them. */
export class TextModel {
  readonly #tokenizer: LibraryTokenizer;
  readonly #template: ChatTemplate | undefined;
  readonly #decoder: unknown;
  readonly #added: ReadonlySet<string>;
  readonly #special: ReadonlySet<string>;
  readonly #thread: EncodeThread;

  private constructor(tokenizerJson: unknown, tokenizerConfig: object, format: ChatFormat) {
    const json = TokenizerJson.parse(tokenizerJson);
    this.#tokenizer = new Tokenizer(json, tokenizerConfig);
    this.#decoder = json.decoder;
    this.#added = new Set(json.added_tokens.map(({ content }) => content));
    this.#special = new Set([
      ...json.added_tokens.filter(({ special }) => special).map(({ content }) => content),
      ...format.specialTokens,
    ]);
    this.#template = format.template;
    this.#thread = new EncodeThread({ json: tokenizerJson, config: tokenizerConfig });
    // Fails now rather than in the first answer.
    this.detokenizer({ continues: false });
  }

  /**
   * Reads the tokenizer of a checkpoint folder.
   * @returns undefined when the folder has none
   * @throws CheckpointError that names the file and says what is wrong with it.
   */
  static async load(dir: string): Promise<TextModel | undefined> {
    const path = join(dir, TOKENIZER_FILE);
    const json = await readJson(path);
    if (json === undefined) return undefined;
    const configPath = join(dir, CONFIG_FILE);
    const config = (await readJson(configPath)) ?? {};
    return TextModel.from(json, config, { json: path, config: configPath });
  }

  /**
   * @param json content of tokenizer.json
   * @param config content of tokenizer_config.json
   * @param names how errors call the two
   * @throws CheckpointError that names the file and says what is wrong with it.
   */
  static from(json: unknown, config: unknown, names = { json: TOKENIZER_FILE, config: CONFIG_FILE }): TextModel {
    const format = attempt(names.config, () => readChatFormat(config));
    return attempt(names.json, () => new TextModel(json, config as object, format));
  }

  /** Whether the checkpoint has a chat format. */
  get hasChatTemplate(): boolean {
    return this.#template !== undefined;
  }

  /**
   * Token ids of a prompt: a plain text, with the special tokens that the tokenizer puts around it (often a
   * beginning-of-sequence), or a conversation up to where the answer begins. A long one is encoded in another thread.
   * @throws ApiError `invalid_request` when the chat template refuses the conversation, `overloaded`.
   */
  async tokens(prompt: string | readonly ChatMessage[]): Promise<number[]> {
    const plain = typeof prompt === "string";
    const text = plain ? prompt : this.renderChat(prompt);
    return text.length > LONG_TEXT ? this.#thread.encode(text, plain) : this.encode(text, plain);
  }

  /**
   * Token ids of a text, on this thread.
   * @param addSpecialTokens false for a rendered conversation, whose template has put them in
   */
  encode(text: string, addSpecialTokens = true): number[] {
    return this.#tokenizer.encode(text.toWellFormed(), { add_special_tokens: addSpecialTokens }).ids;
  }

  /** A conversation in the model's chat format. @throws ApiError `invalid_request` when there is none or it refuses. */
  renderChat(messages: readonly ChatMessage[]): string {
    if (this.#template) return this.#template.render(messages);
    throw new ApiError("invalid_request", "The model has no chat template: use /v1/completions.", {
      param: "messages",
    });
  }

  /** Decodes one answer as it comes; special tokens have no text. */
  detokenizer({ continues }: DetokenizerOptions): Detokenizer {
    const stages = buildStages(this.#decoder, { added: this.#added, continues });
    return new Detokenizer((id) => {
      const token = this.#tokenizer.id_to_token(id);
      return token === undefined || this.#special.has(token) ? undefined : token;
    }, stages);
  }

  /** The vocabulary's entry of a token, as it is stored, or undefined. */
  tokenText(id: number): string | undefined {
    return this.#tokenizer.id_to_token(id);
  }
}

async function readJson(path: string): Promise<unknown> {
  let text: string;
  try {
    text = await readFile(path, "utf8");
  } catch (error) {
    if (isErrno(error, "ENOENT")) return undefined;
    throw new CheckpointError(path, `cannot be read: ${explain(error)}`, { cause: error });
  }
  try {
    return JSON.parse(text);
  } catch (error) {
    throw new CheckpointError(path, "is malformed: not JSON", { cause: error });
  }
}

interface ChatFormat {
  template: ChatTemplate | undefined;
  specialTokens: readonly string[];
}

function readChatFormat(tokenizerConfig: unknown): ChatFormat {
  const config = TokenizerConfig.parse(tokenizerConfig);
  const variables: Record<string, string> = {};
  for (const name of SPECIAL_TOKENS) {
    const token = SpecialToken.safeParse(config[name]);
    if (token.success) variables[name] = token.data;
  }
  const { chat_template: given } = config;
  const source = Array.isArray(given) ? given.find(({ name }) => name === "default")?.template : given;
  return {
    template: typeof source === "string" ? new ChatTemplate(source, variables) : undefined,
    specialTokens: config.additional_special_tokens ?? [],
  };
}

function attempt<T>(path: string, read: () => T): T {
  try {
    return read();
  } catch (error) {
    throw new CheckpointError(path, `cannot be used: ${explain(error)}`, { cause: error });
  }
}

function explain(error: unknown): string {
  if (error instanceof z.ZodError) {
    const issue = error.issues[0];
    if (issue) return `'${issue.path.join(".")}': ${issue.message}`;
  }
  return error instanceof Error ? error.message : String(error);
}
