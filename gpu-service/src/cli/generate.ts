import { randomInt, randomUUID } from "node:crypto";
import { ExitPolicyName, type FathomRequest, fullDepth, requireExit } from "@fathom/shared";
import { type Command, Option } from "commander";
import type { TextEnd } from "../text/generate-text.ts";
import type { ServedModel } from "../text/served-model.ts";
import { interruptible } from "./interruptible.ts";
import { CliError, collect, decimalNumber, outputClosed, wholeNumber } from "./output.ts";

const DEFAULT_MAX_TOKENS = 256;

interface GenerateOptions {
  depth?: number;
  exit: ExitPolicyName;
  threshold?: number;
  minDepth?: number;
  maxTokens?: number;
  temperature: number;
  topP: number;
  seed?: number;
  stop: string[];
  raw?: boolean;
  json?: boolean;
}

/** Adds `fathom generate`. */
export function registerGenerateCommand(program: Command): void {
  program
    .command("generate")
    .description("answer one prompt; the text goes to stdout, timing and layers to stderr")
    .argument("<dir>", "checkpoint folder")
    .argument("<prompt>", "what to answer")
    .option("--depth <layers>", "exit to stop at (default: the full depth)", wholeNumber(1, 1024))
    .addOption(
      new Option("--exit <policy>", "how a token's depth is decided").choices(ExitPolicyName.options).default("fixed"),
    )
    .option("--threshold <p>", "confidence that ends a token early (default: the calibrated ones)", decimalNumber(0, 1))
    .option("--min-depth <layers>", "shallowest exit of --exit confidence, or the draft's", wholeNumber(1, 1024))
    .option("--max-tokens <n>", `longest answer (default: ${DEFAULT_MAX_TOKENS})`, wholeNumber(1, 1_000_000))
    .option("--temperature <t>", "0 always takes the likeliest token", decimalNumber(0, 2), 0)
    .option("--top-p <p>", "share of the probability to draw from", decimalNumber(0.000001, 1), 1)
    .option("--seed <n>", "makes a drawn answer repeatable", wholeNumber(0, Number.MAX_SAFE_INTEGER))
    .option("--stop <text>", "ends the answer; may be given several times", collect, [])
    .option("--raw", "continue the prompt as it is, without the chat template")
    .option("--json", "print one JSON object instead of streaming")
    .addHelpText("after", '\nExample:\n  $ fathom generate models/smollm2-135m "Name three whales." --depth 18\n')
    .action(generate);
}

async function generate(dir: string, prompt: string, options: GenerateOptions): Promise<void> {
  const { loadModel } = await import("../text/served-model.ts");
  const model = await loadModel(dir);
  try {
    await interruptible("the answer is not complete", (signal) => run(model, prompt, options, signal));
  } finally {
    await model.engine.close();
  }
}

async function run(model: ServedModel, prompt: string, options: GenerateOptions, signal: AbortSignal): Promise<void> {
  const { generateText } = await import("../text/generate-text.ts");
  const { choosePolicy } = await import("../http/choose-policy.ts");
  const { manifest, engine, text: textModel } = model;
  if (!textModel) throw new CliError(`${manifest.name} has no tokenizer: a text cannot be made into tokens`);
  const chat = !options.raw && textModel.hasChatTemplate;
  const tokens = await textModel.tokens(chat ? [{ role: "user", content: prompt }] : prompt);
  const room = engine.info.contextLength - tokens.length;
  const depth =
    options.depth === undefined
      ? fullDepth(engine.info.exits)
      : requireExit(engine.info.exits, options.depth, "--depth");
  const { exit, threshold, minDepth } = options;
  const wish: FathomRequest = {
    exit,
    ...(threshold === undefined ? {} : { threshold }),
    ...(minDepth === undefined ? {} : { min_depth: minDepth }),
  };
  const events = generateText(
    engine,
    textModel,
    {
      id: randomUUID(),
      prompt: tokens,
      depth,
      ...choosePolicy(engine.info.exits, wish, depth, manifest),
      sampling: {
        temperature: options.temperature,
        topP: options.topP,
        seed: options.seed ?? randomInt(2 ** 32),
      },
      maxTokens: options.maxTokens ?? Math.max(1, Math.min(DEFAULT_MAX_TOKENS, room)),
      stopTokenIds: manifest.tokenizer.eos_token_ids,
      stop: options.stop,
      continues: !chat,
      reason: "requested",
      price: 0,
      perTokenLayers: options.json ?? false,
    },
    AbortSignal.any([signal, outputClosed.signal]),
  );
  let text = "";
  for await (const event of events) {
    if (options.json) text += event.text;
    else process.stdout.write(event.text);
    if (event.type === "end") print(event, text, options.json ?? false);
  }
}

function print({ finishReason, usage, fathom }: TextEnd, text: string, json: boolean): void {
  if (json) {
    process.stdout.write(`${JSON.stringify({ text, finish_reason: finishReason, usage, fathom })}\n`);
    return;
  }
  const { timing, layers, cost } = fathom;
  const { draft } = layers;
  const drafted = draft ? `${draft.accepted} of ${draft.proposed} drafted at ${draft.depth} stand, ` : "";
  process.stdout.write("\n");
  process.stderr.write(
    `[depth ${fathom.depth}, ${fathom.exit}: ${usage.completion_tokens} tokens (${finishReason}), ${layers.mean.toFixed(1)} layers per token, ${drafted}` +
      `first token after ${timing.time_to_first_token_ms.toFixed(0)} ms, ` +
      `${timing.tokens_per_second.toFixed(1)} tokens/s, ${cost.layer_tokens} layer-tokens]\n`,
  );
}
