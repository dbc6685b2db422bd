import { basename } from "node:path";
import { z } from "zod";
import type { TextModel } from "../text/text-model.ts";
import { HELD_OUT_EVERY } from "../train/data/dataset.ts";
import { alpacaPrompt, type PromptTemplate } from "../train/data/encode-record.ts";
import { parseRecord, readJsonRecords, type TrainingRecord } from "../train/data/records.ts";
import { CalibrationError } from "./calibration-error.ts";

const Text = z.string().refine((text) => text.trim() !== "");

/** Prompts without responses, as the usual sets of instructions write them; `context` is continued as it stands. */
const Bare = z.union([
  z.object({ instruction: Text, input: z.string().default("") }),
  z.object({ Instruction: Text }).transform(({ Instruction }) => ({ instruction: Instruction, input: "" })),
  z.object({ prompt: Text }).transform(({ prompt }) => ({ instruction: prompt, input: "" })),
  z.object({ text: Text }).transform(({ text }) => ({ instruction: text, input: "" })),
  z.object({ context: Text }).transform(({ context }) => ({ plain: context })),
]);

/** Fields that only a record with a response has: `fathom train` may have learnt from it. */
const RESPONSES = ["output", "messages", "completion", "completion_tokens"];

export interface PromptOptions {
  text: TextModel | undefined;
  /** How an instruction becomes a prompt. */
  template: PromptTemplate;
  /** Use records with responses whether or not `fathom train` holds them out. */
  all: boolean;
  /** Prompts longer than this are left out, tokens. */
  maxLength: number;
  /** Token ids must lie below. */
  vocabulary: number;
}

export interface PromptSet {
  /** Token ids. */
  prompts: number[][];
  data: { file: string; sha256: string; prompts: number }[];
  /** Prompts that are too long, or that were there already. */
  leftOut: number;
}

/**
 * Reads prompts from JSON arrays or JSON lines: what `fathom train` reads, of which only its held-out records are used unless
 * `all` is set, and sets of bare instructions (`instruction` with or without `input`, `Instruction`, `prompt`, `text`), or
 * `context`, a text to continue.
 * @throws TrainError or CalibrationError that names the file and the record that cannot be used.
 */
export async function readPrompts(paths: readonly string[], options: PromptOptions): Promise<PromptSet> {
  const set: PromptSet = { prompts: [], data: [], leftOut: 0 };
  const seen = new Set<string>();
  for (const path of paths) {
    const { records, sha256, where } = await readJsonRecords(path);
    let prompts = 0;
    for (const [index, json] of records.entries()) {
      const answered = RESPONSES.some((field) => typeof json === "object" && json !== null && field in json);
      if (answered && !options.all && index % HELD_OUT_EVERY !== 0) continue;
      const tokens = answered ? answeredPrompt(json, where(index), options) : barePrompt(json, where(index), options);
      if (tokens === undefined) continue;
      if (tokens.some((token) => token >= options.vocabulary)) {
        throw new CalibrationError(`${where(index)}: a token id lies outside the vocabulary of ${options.vocabulary}`);
      }
      const key = tokens.join();
      if (tokens.length === 0 || tokens.length > options.maxLength || seen.has(key)) {
        set.leftOut++;
        continue;
      }
      seen.add(key);
      set.prompts.push(tokens);
      prompts++;
    }
    set.data.push({ file: basename(path), sha256, prompts });
  }
  return set;
}

/** Undefined for a record with an empty text. */
function answeredPrompt(json: unknown, where: string, options: PromptOptions): number[] | undefined {
  const record: TrainingRecord | undefined = parseRecord(json, where, true);
  switch (record?.kind) {
    case undefined:
      return undefined;
    case "tokens":
      return record.prompt_tokens;
    case "completion":
      return requireText(options, where).encode(record.prompt);
    case "alpaca":
      return instructionPrompt(record, where, options);
    case "chat": {
      const text = requireText(options, where);
      return text.encode(text.renderChat(record.messages.slice(0, -1)), false);
    }
  }
}

function barePrompt(json: unknown, where: string, options: PromptOptions): number[] {
  const { success, data } = Bare.safeParse(json);
  if (!success) {
    throw new CalibrationError(
      `${where}: has no prompt: none of instruction, prompt, text, context, messages, prompt_tokens with a text in it`,
    );
  }
  return "plain" in data ? requireText(options, where).encode(data.plain) : instructionPrompt(data, where, options);
}

function instructionPrompt(
  { instruction, input }: { instruction: string; input: string },
  where: string,
  options: PromptOptions,
): number[] {
  const text = requireText(options, where);
  if (options.template === "alpaca") return text.encode(alpacaPrompt(instruction, input));
  const content = input === "" ? instruction : `${instruction}\n\n${input}`;
  return text.encode(text.renderChat([{ role: "user", content }]), false);
}

function requireText({ text }: PromptOptions, where: string): TextModel {
  if (text) return text;
  throw new CalibrationError(`${where}: the checkpoint has no tokenizer, so records must be prompt_tokens`);
}
