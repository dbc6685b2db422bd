import { z } from "zod";
import { byteLevelBytes } from "./byte-level.ts";
import { ReplaceDecoder, StripDecoder } from "./tokenizers-library.ts";

/** One step from tokens to text, fed one token at a time. What it returns is final: it never changes with later tokens. */
export interface DecoderStage {
  push(token: string): string[];
  /** The rest, once no token follows. */
  end(): string[];
}

const DecoderConfig = z.looseObject({ type: z.string() });
const SequenceConfig = z.object({ decoders: z.array(DecoderConfig) });
const StripConfig = z.object({ content: z.string(), start: z.int().min(0), stop: z.int().min(0) });
const MetaspaceConfig = z.object({ replacement: z.string().default("\u2581") });

export interface StageOptions {
  /** Contents of added tokens, which stand for themselves. */
  added: ReadonlySet<string>;
  /** The text continues another one: a space that a decoder strips from the beginning of a text is kept. */
  continues: boolean;
}

/**
 * Builds the streaming form of a tokenizer.json's `decoder`.
 * @throws TypeError for a decoder that LLaMA tokenizers do not use.
 */
export function buildStages(config: unknown, options: StageOptions): DecoderStage[] {
  const decoder = DecoderConfig.safeParse(config);
  if (!decoder.success) throw new TypeError("it names no decoder");
  if (decoder.data.type === "Sequence") {
    const stages: DecoderStage[] = [];
    let fused = false;
    for (const part of SequenceConfig.parse(decoder.data).decoders) {
      if (part.type === "Fuse") fused = true;
      else stages.push(...buildStage(part, fused, options));
    }
    return stages;
  }
  return buildStage(decoder.data, false, options);
}

function buildStage(config: z.infer<typeof DecoderConfig>, fused: boolean, options: StageOptions): DecoderStage[] {
  switch (config.type) {
    case "ByteLevel":
      return [new BytesStage((token) => (options.added.has(token) ? undefined : byteLevelBytes(token)))];
    case "ByteFallback":
      return [new BytesStage(fallbackByte)];
    case "Metaspace": {
      const { replacement } = MetaspaceConfig.parse(config);
      const spaces = eachToken((token) => token.replaceAll(replacement, " "));
      return options.continues ? [spaces] : [spaces, new StripStartStage(" ", 1)];
    }
    case "Replace": {
      if (fused) break;
      const replace = new ReplaceDecoder(config);
      return [eachToken((token) => replace.decode_chain([token]).join(""))];
    }
    case "Strip": {
      const { content, start, stop } = StripConfig.parse(config);
      if (!fused) {
        const strip = new StripDecoder(config);
        return [eachToken((token) => strip.decode_chain([token]).join(""))];
      }
      if (stop > 0) break;
      return options.continues ? [] : [new StripStartStage(content, start)];
    }
  }
  throw new TypeError(`its decoder '${config.type}' is not supported`);
}

function eachToken(map: (token: string) => string): DecoderStage {
  return { push: (token) => [map(token)], end: () => [] };
}

const BYTE_TOKEN = /^<0x([0-9A-Fa-f]{2})>$/;

function fallbackByte(token: string): Uint8Array | undefined {
  const hex = BYTE_TOKEN.exec(token)?.[1];
  return hex === undefined ? undefined : Uint8Array.of(Number.parseInt(hex, 16));
}

/**
 * Decodes runs of byte tokens as UTF-8. Bytes that may still become a character are held back; a byte that cannot becomes
 * U+FFFD, as it would in the whole run.
 */
class BytesStage implements DecoderStage {
  readonly #bytes: (token: string) => Uint8Array | undefined;
  readonly #decoder = new TextDecoder("utf-8", { ignoreBOM: true });

  /** @param bytes the bytes of a token, undefined for one that stands for itself */
  constructor(bytes: (token: string) => Uint8Array | undefined) {
    this.#bytes = bytes;
  }

  push(token: string): string[] {
    const bytes = this.#bytes(token);
    return bytes ? [this.#decoder.decode(bytes, { stream: true })] : [...this.end(), token];
  }

  end(): string[] {
    return [this.#decoder.decode()];
  }
}

/** Drops up to `count` times `content` (one character) from the beginning of the whole text. */
class StripStartStage implements DecoderStage {
  readonly #content: string;
  #left: number;

  constructor(content: string, count: number) {
    this.#content = content;
    this.#left = count;
  }

  push(token: string): string[] {
    let from = 0;
    for (; from < token.length && this.#left > 0; this.#left--) {
      if (token[from] === this.#content) from++;
      else this.#left = 1;
    }
    return [token.slice(from)];
  }

  end(): string[] {
    return [];
  }
}
