import type { TextModel } from "../../text/text-model.ts";
import { IGNORED } from "../batch.ts";
import { TrainError } from "../train-error.ts";
import type { TrainingRecord } from "./records.ts";

export type PromptTemplate = "alpaca" | "chat";

/** Token ids with a label per token: the token itself where it belongs to a response, else `IGNORED`. Not shifted. */
export interface Example {
  tokens: Int32Array;
  labels: Int32Array;
}

export interface EncodeOptions {
  text: TextModel | undefined;
  /** Ends every response and is learnt with it; undefined when the model has none. */
  endToken: number | undefined;
  /** How an instruction becomes a prompt. */
  template: PromptTemplate;
}

/**
 * The prompt of Stanford Alpaca, which the papers train with.
 * https://github.com/tatsu-lab/stanford_alpaca/blob/main/train.py
 */
export function alpacaPrompt(instruction: string, input: string): string {
  return input === ""
    ? "Below is an instruction that describes a task. Write a response that appropriately completes the request.\n\n" +
        `### Instruction:\n${instruction}\n\n### Response:`
    : "Below is an instruction that describes a task, paired with an input that provides further context. " +
        "Write a response that appropriately completes the request.\n\n" +
        `### Instruction:\n${instruction}\n\n### Input:\n${input}\n\n### Response:`;
}

/** Encodes a record. @throws TrainError starting with `where` when the model cannot take it. */
export function encodeRecord(record: TrainingRecord, where: string, options: EncodeOptions): Example {
  switch (record.kind) {
    case "tokens":
      return join([prompt(record.prompt_tokens), response(record.completion_tokens)]);
    case "completion": {
      const text = requireText(options, where);
      const answer = response([...text.encode(record.completion, false), ...end(options)]);
      return join([prompt(text.encode(record.prompt)), answer]);
    }
    case "alpaca": {
      const { instruction, input, output } = record;
      if (options.template === "alpaca") {
        const completion = {
          kind: "completion",
          prompt: alpacaPrompt(instruction, input),
          completion: output,
        } as const;
        return encodeRecord(completion, where, options);
      }
      const question = input === "" ? instruction : `${instruction}\n\n${input}`;
      const messages = [
        { role: "user", content: question },
        { role: "assistant", content: output },
      ] as const;
      return encodeChat(messages, where, options);
    }
    case "chat":
      return encodeChat(record.messages, where, options);
  }
}

interface Message {
  role: "system" | "user" | "assistant";
  content: string;
}

/** Every answer of the assistant is a response; what the template puts between them is not, but for the end token. */
function encodeChat(messages: readonly Message[], where: string, options: EncodeOptions): Example {
  const text = requireText(options, where);
  const parts: Part[] = [];
  let rendered = "";
  for (const [i, { role, content }] of messages.entries()) {
    if (role !== "assistant") continue;
    const before = text.renderChat(messages.slice(0, i));
    if (!before.startsWith(rendered)) throw new TrainError(`${where}: the chat template rewrites earlier turns`);
    const between = text.encode(before.slice(rendered.length), false);
    const ends = rendered !== "" && between[0] === options.endToken ? 1 : 0;
    parts.push(response(between.slice(0, ends)), prompt(between.slice(ends)));
    parts.push(response(text.encode(content, false)));
    rendered = before + content;
  }
  parts.push(response(end(options)));
  return join(parts);
}

interface Part {
  tokens: readonly number[];
  learnt: boolean;
}

const prompt = (tokens: readonly number[]): Part => ({ tokens, learnt: false });
const response = (tokens: readonly number[]): Part => ({ tokens, learnt: true });

function join(parts: readonly Part[]): Example {
  return {
    tokens: Int32Array.from(parts.flatMap(({ tokens }) => tokens)),
    labels: Int32Array.from(parts.flatMap(({ tokens, learnt }) => tokens.map((t) => (learnt ? t : IGNORED)))),
  };
}

function end({ endToken }: EncodeOptions): number[] {
  return endToken === undefined ? [] : [endToken];
}

function requireText({ text }: EncodeOptions, where: string): TextModel {
  if (text) return text;
  throw new TrainError(`${where}: the base has no tokenizer, so records must be prompt_tokens and completion_tokens`);
}
