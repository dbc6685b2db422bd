import { createHash } from "node:crypto";
import { readFile } from "node:fs/promises";
import { basename } from "node:path";
import { z } from "zod";
import { TrainError } from "../train-error.ts";
import { type ArrayElement, arrayElements } from "./json-array.ts";

const EMPTY = "is empty; --skip-empty leaves such records out";
const Text = z.string().refine((text) => text.trim() !== "", { error: EMPTY });
const Tokens = z.array(z.int().min(0)).min(1);

const Alpaca = z.object({ instruction: Text, input: z.string().default(""), output: Text });
const Chat = z.object({
  messages: z
    .array(z.object({ role: z.enum(["system", "user", "assistant"]), content: Text }))
    .min(1)
    .refine((messages) => messages.at(-1)?.role === "assistant", { error: "the last message must be the assistant's" }),
});
const Completion = z.object({ prompt: z.string(), completion: Text });
const TokenIds = z.object({ prompt_tokens: Tokens, completion_tokens: Tokens });

/** One example as its file states it. */
export type TrainingRecord =
  | ({ kind: "alpaca" } & z.infer<typeof Alpaca>)
  | ({ kind: "chat" } & z.infer<typeof Chat>)
  | ({ kind: "completion" } & z.infer<typeof Completion>)
  | ({ kind: "tokens" } & z.infer<typeof TokenIds>);

export interface JsonRecordFile {
  records: unknown[];
  /** Of the file's bytes, lower-case hex. */
  sha256: string;
  /** How errors call a record: `alpaca.json, line 37 (record 7)` or `chat.jsonl, line 8`. */
  where: (index: number) => string;
}

export interface RecordFile extends Omit<JsonRecordFile, "records"> {
  /** By index; undefined where an empty one is left out. */
  records: (TrainingRecord | undefined)[];
}

/** Reads a JSON array or JSON lines as they are. @throws TrainError that names the file, and the line that is not JSON. */
export async function readJsonRecords(path: string): Promise<JsonRecordFile> {
  let bytes: Buffer;
  try {
    bytes = await readFile(path);
  } catch (error) {
    throw new TrainError(`${path}: cannot be read (${error instanceof Error ? error.message : error})`);
  }
  const name = basename(path);
  const text = bytes.toString("utf8");
  const isArray = text.trimStart().startsWith("[");
  const elements = isArray ? arrayElements(text) : [];
  const where = (index: number) =>
    isArray ? `${name}, line ${elements[index]?.line} (record ${index})` : `${name}, line ${index + 1}`;
  const records = isArray ? parseArray(text, name, elements, where) : parseLines(text, where);
  return { records, sha256: createHash("sha256").update(bytes).digest("hex"), where };
}

/**
 * Reads a JSON array or JSON lines. Each record is Alpaca's `{instruction, input, output}`, a chat `{messages}`, `{prompt,
 * completion}`, or token ids `{prompt_tokens, completion_tokens}` for a model without a tokenizer.
 * @param skipEmpty leave records out whose instruction or response is blank, rather than refuse the file
 * @throws TrainError that names the file, the line, and what is wrong.
 */
export async function readRecords(path: string, skipEmpty: boolean): Promise<RecordFile> {
  const { records: json, sha256, where } = await readJsonRecords(path);
  const records = json.map((record, i) => parseRecord(record, where(i), skipEmpty));
  if (!records.some((record) => record !== undefined)) throw new TrainError(`${basename(path)}: there are no records`);
  return { records, sha256, where };
}

function parseArray(
  text: string,
  name: string,
  elements: readonly ArrayElement[],
  where: (index: number) => string,
): unknown[] {
  try {
    return JSON.parse(text) as unknown[];
  } catch (error) {
    const broken = elements.findIndex((element) => !isJson(element.text));
    const reason = `is not JSON (${error instanceof Error ? error.message : error})`;
    throw new TrainError(broken < 0 ? `${name}: ${reason}` : `${where(broken)}: ${reason}`);
  }
}

function isJson(text: string): boolean {
  try {
    JSON.parse(text);
    return true;
  } catch {
    return false;
  }
}

function parseLines(text: string, where: (index: number) => string): unknown[] {
  return text
    .replace(/\r?\n$/, "")
    .split("\n")
    .map((line, i) => {
      try {
        return JSON.parse(line);
      } catch {
        throw new TrainError(`${where(i)}: ${line.trim() === "" ? "is empty" : "is not JSON"}`);
      }
    });
}

/**
 * Checks one record.
 * @returns undefined for an empty one, with `skipEmpty`
 * @throws TrainError that starts with `where`
 */
export function parseRecord(json: unknown, where: string, skipEmpty: boolean): TrainingRecord | undefined {
  const has = (field: string) => typeof json === "object" && json !== null && field in json;
  const check = <T>(schema: z.ZodType<T>): T | undefined => {
    const result = schema.safeParse(json);
    if (result.success) return result.data;
    if (skipEmpty && result.error.issues.every(({ message }) => message === EMPTY)) return undefined;
    const issue = result.error.issues[0];
    const field = issue && issue.path.length > 0 ? `'${issue.path.join(".")}' ` : "";
    throw new TrainError(`${where}: ${field}${issue?.message ?? "is malformed"}`);
  };
  const tagged = <K extends string, T extends object>(kind: K, fields: T | undefined) => fields && { kind, ...fields };
  if (has("messages")) return tagged("chat", check(Chat));
  if (has("instruction")) return tagged("alpaca", check(Alpaca));
  if (has("prompt_tokens")) return tagged("tokens", check(TokenIds));
  if (has("prompt")) return tagged("completion", check(Completion));
  throw new TrainError(`${where}: has none of messages, instruction, prompt, prompt_tokens`);
}
