import type { Calibration } from "@fathom/shared";
import { type Command, Option } from "commander";
import type { CalibrateResult } from "../calibration/calibrate.ts";
import type { Certificate } from "../calibration/learn-then-test.ts";
import type { RiskTestName } from "../calibration/risk-bounds.ts";
import type { PromptTemplate } from "../train/data/encode-record.ts";
import { interruptible } from "./interruptible.ts";
import { collect, decimalNumber, depthList, wholeNumber } from "./output.ts";

const SURE = 0.999999;
const LARGE = 1_000_000_000;

interface CalibrateCommandOptions {
  data: string[];
  agreement: number;
  confidence: number;
  prompts?: number;
  maxTokens: number;
  exits?: number[];
  template?: PromptTemplate;
  all?: boolean;
  test: RiskTestName;
  parallel: number;
  seed: number;
  json?: boolean;
}

/** Adds `fathom calibrate`. */
export function registerCalibrateCommand(program: Command): void {
  program
    .command("calibrate")
    .description("choose thresholds for the confidence exit, with a guarantee, and write them into the checkpoint")
    .argument("<dir>", "checkpoint folder")
    .requiredOption("--data <file>", "prompts, as JSON or JSON lines; may be given several times", addFile)
    .requiredOption(
      "--agreement <share>",
      "share of tokens that must equal full depth's, such as 0.98",
      decimalNumber(1 - SURE, SURE),
    )
    .option(
      "--confidence <p>",
      "probability that the guarantee holds, over the draw of prompts",
      decimalNumber(1 - SURE, SURE),
      0.95,
    )
    .option("--prompts <n>", "prompts to use, drawn by the seed (default: all)", wholeNumber(1, LARGE))
    .option("--max-tokens <n>", "longest continuation of a prompt", wholeNumber(1, 1_000_000), 128)
    .option("--exits <depths>", "exits that may get a threshold (default: all)", depthList)
    .addOption(
      new Option(
        "--template <name>",
        "how an instruction becomes a prompt (default: chat where the model has one)",
      ).choices(["alpaca", "chat"]),
    )
    .option("--all", "use every record with a response, not only those that fathom train holds out")
    .addOption(
      new Option("--test <name>", "statistical test").choices(["betting", "hoeffding-bentkus"]).default("betting"),
    )
    .option("--parallel <n>", "prompts in work at the same time", wholeNumber(1, 1024), 8)
    .option("--seed <n>", "order and draw of the prompts", wholeNumber(0, Number.MAX_SAFE_INTEGER), 42)
    .option("--json", "print JSON")
    .addHelpText(
      "after",
      "\nExample:\n  $ fathom calibrate runs/soft/checkpoint --data alpaca.json --data questions.jsonl --agreement 0.98\n",
    )
    .action(calibrate);
}

function addFile(file: string, previous: readonly string[] | undefined): string[] {
  return collect(file, previous ?? []);
}

async function calibrate(dir: string, { json, all, ...options }: CalibrateCommandOptions): Promise<void> {
  const { calibrateCheckpoint } = await import("../calibration/calibrate.ts");
  const { ProgressBar } = await import("./progress-bar.ts");
  const bar = new ProgressBar();
  try {
    const result = await interruptible("the checkpoint is as it was", (signal) =>
      calibrateCheckpoint(
        dir,
        { ...options, all: all ?? false },
        { signal, onPrompt: (done, total) => bar.update("prompts", done, total) },
      ),
    );
    bar.stop();
    const { thresholds, calibration } = result;
    process.stdout.write(json ? `${JSON.stringify({ thresholds, calibration }, null, 2)}\n` : toText(result));
  } finally {
    bar.stop();
  }
}

/** A share as per cent, such as `98.71%`. */
function percent(share: number): string {
  return `${(100 * share).toFixed(2)}%`;
}

function toText({ calibration: c, certificate }: CalibrateResult): string {
  const { measured: m, prompts, tokens } = c;
  const full = c.exits.at(-1)?.depth ?? 0;
  const use = prompts.fit > 0 ? `${prompts.fit} shape the thresholds, ${prompts.certify} certify` : "all certify";
  const rows: [string, string][] = [
    ["prompts", `${prompts.fit + prompts.certify} (${use}), ${tokens.fit + tokens.certify} tokens`],
    ["method", `${c.method}; ${certificate.passed} of ${certificate.candidates} candidates passed`],
    ["guarantee", c.certified ? guaranteeText(c) : explainFailure(c, certificate)],
    ["measured", `agreement ${percent(m.agreement)} (95%: ${m.agreement_interval.map(percent).join(" to ")})`],
    ["layers", `${m.mean_layers.toFixed(2)} of ${full} per token, ${percent(m.layers_share)}`],
  ];
  const exits = c.exits.map(({ depth, threshold, tokens: count, agreement }) => {
    const cells = [
      String(depth).padStart(6),
      (threshold ?? (depth === full ? "rest" : "never")).toString().padStart(9),
      String(count).padStart(8),
      percent(count / tokens.certify).padStart(8),
      (agreement === null ? "-" : percent(agreement)).padStart(9),
    ];
    return cells.join("  ");
  });
  const head = rows.map(([label, value]) => `${label.padEnd(13)}${value}`);
  return `${[...head, "", "  exit  threshold    tokens     share  agreement", ...exits].join("\n")}\n`;
}

/** The guarantee in one line. */
export function guaranteeText({ agreement, confidence, p_value, max_tokens }: Calibration): string {
  const p = p_value === null ? "" : ` (p = ${p_value.toPrecision(2)})`;
  return `with confidence ${confidence}, on average at least ${agreement} of an answer's first ${max_tokens} tokens equal full depth's${p}`;
}

function explainFailure({ agreement, prompts }: Calibration, { promptsNeeded, candidates }: Certificate): string {
  const given = prompts.fit + prompts.certify;
  const why =
    candidates === 0
      ? "no exit saves layers without too many other tokens"
      : promptsNeeded === undefined
        ? "even the most careful thresholds agree too rarely; lower --agreement, or train the exits"
        : `about ${promptsNeeded} prompts like these ${given} would be needed for the most careful thresholds`;
  return `none: ${agreement} could not be certified, so every token goes to full depth; ${why}`;
}
