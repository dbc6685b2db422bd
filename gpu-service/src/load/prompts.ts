import { z } from "zod";

const Turn = z.object({ role: z.enum(["system", "developer", "user", "assistant"]), content: z.string() });

/** What one request asks: a text, a conversation up to the answer, or token ids. */
export type BenchPrompt =
  | { kind: "text"; text: string }
  | { kind: "chat"; messages: z.infer<typeof Turn>[] }
  | { kind: "tokens"; tokens: number[] };

/** A prompt file that cannot be used; the message names the file, the record and what is wrong. */
export class PromptError extends Error {
  override readonly name = "PromptError";
}

const Text = z.string().refine((text) => text.trim() !== "", { error: "is empty" });
const text = (value: string): BenchPrompt => ({ kind: "text", text: value });

const Instructed = z.object({ instruction: z.string(), input: z.string().default("") });

/** The instruction and its input, whichever are there. */
function instructed({ instruction, input }: z.infer<typeof Instructed>, context: z.RefinementCtx): BenchPrompt {
  const parts = [instruction, input].filter((part) => part.trim() !== "");
  if (parts.length === 0) context.addIssue({ code: "custom", message: "is empty", path: ["instruction"] });
  return text(parts.join("\n\n"));
}

/** By the field that tells the format. Only what a request needs is read: training's readers ask for answers too. */
const FORMATS: Record<string, z.ZodType<BenchPrompt>> = {
  messages: z.object({ messages: z.array(Turn).min(1) }).transform(({ messages }, context) => {
    const asked = messages.slice(0, messages.findLastIndex(({ role }) => role !== "assistant") + 1);
    if (asked.length === 0) context.addIssue("has nothing but answers");
    return { kind: "chat" as const, messages: asked };
  }),
  // Self-Instruct 252
  instances: z
    .object({ instruction: z.string(), instances: z.array(z.object({ input: z.string() })).min(1) })
    .transform(({ instruction, instances }, context) =>
      instructed({ instruction, input: instances[0]?.input ?? "" }, context),
    ),
  // Alpaca, PandaLM
  instruction: Instructed.transform(instructed),
  // WizardLM 218
  Instruction: z.object({ Instruction: Text }).transform(({ Instruction }) => text(Instruction)),
  // ShareGPT
  conversations: z
    .object({ conversations: z.array(z.object({ from: z.string(), value: z.string() })).min(1) })
    .transform(({ conversations }, context) => {
      const first = conversations.find(({ from, value }) => from === "human" && value.trim() !== "");
      if (!first) context.addIssue("has no turn of a human");
      return text(first?.value ?? "");
    }),
  prompt_tokens: z
    .object({ prompt_tokens: z.array(z.int().min(0)).min(1) })
    .transform(({ prompt_tokens }) => ({ kind: "tokens" as const, tokens: prompt_tokens })),
  // Koala 180
  prompt: z.object({ prompt: Text }).transform(({ prompt }) => text(prompt)),
  // Vicuna 80
  text: z.object({ text: Text }).transform((record) => text(record.text)),
  // TriviaQA
  context: z.object({ context: Text }).transform(({ context }) => text(context)),
};

/**
 * Reads prompts from the content of a JSON array or of JSON lines. A record is a chat `{messages}`, Alpaca's or PandaLM's
 * `{instruction, input}`, Self-Instruct's `{instruction, instances}`, WizardLM's `{Instruction}`, ShareGPT's
 * `{conversations}`, or has its prompt in `prompt`, `text`, `context` or `prompt_tokens`. Answers in it are left alone.
 * @param name how errors call the file
 * @throws PromptError
 */
export function parsePrompts(content: string, name: string): BenchPrompt[] {
  const isArray = content.trimStart().startsWith("[");
  const where = (index: number) => (isArray ? `${name}, record ${index}` : `${name}, line ${index + 1}`);
  const records = isArray
    ? (parseJson(content, name) as unknown[])
    : content
        .trimEnd()
        .split("\n")
        .map((line, i) => parseJson(line, where(i)));
  if (records.length === 0) throw new PromptError(`${name}: there are no prompts`);
  return records.map((record, i) => parseRecord(record, where(i)));
}

function parseJson(json: string, where: string): unknown {
  try {
    return JSON.parse(json);
  } catch (error) {
    throw new PromptError(`${where}: ${json.trim() === "" ? "is empty" : "is not JSON"}`, { cause: error });
  }
}

function parseRecord(record: unknown, where: string): BenchPrompt {
  const format = Object.entries(FORMATS).find(
    ([field]) => typeof record === "object" && record !== null && field in record,
  )?.[1];
  if (!format) throw new PromptError(`${where}: has none of ${Object.keys(FORMATS).join(", ")}`);
  const result = format.safeParse(record);
  if (result.success) return result.data;
  const issue = result.error.issues[0];
  const field = issue && issue.path.length > 0 ? `'${issue.path.join(".")}' ` : "";
  throw new PromptError(`${where}: ${field}${issue?.message ?? "is malformed"}`);
}
