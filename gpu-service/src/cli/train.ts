import { type Command, InvalidArgumentError, Option } from "commander";
import type { ResumeSettings, TrainListener } from "../train/run.ts";
import { CliError, decimalNumber, depthList, wholeNumber } from "./output.ts";

const PROVIDERS = ["cpu", "webgpu", "cuda"];
const METHODS = ["sft", "soft", "sortednet", "lite", "ict"];
const LARGE = 1_000_000_000;

/** Options as commander gives them; all but `out` and the modes are settings of `TrainConfig`. */
interface TrainOptions {
  out: string;
  config?: string;
  resume?: boolean;
  exportOnly?: boolean;
  exportAdapters?: string;
  [setting: string]: unknown;
}

/** Adds `fathom train`. */
export function registerTrainCommand(program: Command): void {
  program
    .command("train")
    .description("make a checkpoint's exits answer well: fine-tune all of them at once")
    .requiredOption("--out <dir>", "folder of the run: settings, metrics, saved state, and checkpoint/ at the end")
    .option("--base <dir>", "nested checkpoint to start from")
    .option("--data <file>", "Alpaca JSON, or JSON lines of {messages}, {prompt, completion}")
    .addOption(new Option("--method <name>", "which exits learn in a step").choices(METHODS))
    .option("--exits <depths>", "depths to train (default: the base's)", depthList)
    .addOption(new Option("--template <name>", "how an instruction becomes a prompt").choices(["alpaca", "chat"]))
    .option("--skip-empty", "leave records with an empty text out")
    .option("--learning-rate <x>", "peak learning rate (default: 2e-5)", scientific)
    .addOption(new Option("--schedule <name>", "default: cosine").choices(["constant", "cosine"]))
    .option("--warmup <steps>", "steps over which the rate rises", wholeNumber(0, LARGE))
    .option("--batch <n>", "examples per forward pass (default: 8)", wholeNumber(1, 4096))
    .option("--accumulation <n>", "forward passes per step (default: 1)", wholeNumber(1, 4096))
    .option("--epochs <n>", "default: 1", decimalNumber(0.001, 10_000))
    .option("--max-steps <n>", "length of the run in steps", wholeNumber(1, LARGE))
    .option("--max-minutes <n>", "stop after this time", decimalNumber(0.01, 1_000_000))
    .option("--max-length <tokens>", "cut longer examples (default: 512)", wholeNumber(2, 1_000_000))
    .option(
      "--min-response <tokens>",
      "leave records with shorter responses out of training",
      wholeNumber(1, 1_000_000),
    )
    .option("--seed <n>", "default: 42", wholeNumber(0, Number.MAX_SAFE_INTEGER))
    .option("--weight-decay <x>", "default: 0", scientific)
    .option("--lora-rank <r>", "train low-rank adapters of the layers only, merged at the end", wholeNumber(1, 1024))
    .option("--adapt <matrices>", "adapters only for attn.qkv,attn.o,mlp.gate_up,mlp.down,layers:6-29")
    .option("--clip <norm>", "largest gradient norm (default: 1)", scientific)
    .option("--exit-weights <list>", "weights of the exits (default: lite 1, 2, …; sortednet equal)", numberList)
    .option("--exits-per-step <n>", "sortednet: exits drawn per step (default: 1)", wholeNumber(1, 1024))
    .option("--always-full", "sortednet: full depth is one of the drawn exits")
    .option("--distill <share>", "share of the loss that is KL to the teacher", decimalNumber(0, 1))
    .option("--teacher <who>", "whose full depth teaches: self, base, or another checkpoint's folder (default: self)")
    .option("--freeze <parts>", "embeddings,head,norm,layers:0-5 stay as they are")
    .option("--eval-every <steps>", "measure held-out records (default: 500)", wholeNumber(1, LARGE))
    .option("--eval-records <n>", "held-out records to measure (default: 48)", wholeNumber(0, LARGE))
    .option("--save-every <minutes>", "save the state (default: 5)", decimalNumber(0.001, 100_000))
    .addOption(new Option("--provider <name>", "where the graphs run (default: cpu)").choices(PROVIDERS))
    .option("--threads <n>", "default: 2", wholeNumber(1, 1024))
    .option("--no-spinning", "idle threads sleep: better beside other work")
    .option("--config <file>", "JSON object of these settings in camel case; options override it")
    .option("--resume", "go on with the run in --out from its last saved state")
    .option("--init-adapters <file>", "start from the adapters of another run (see --export-adapters)")
    .option("--export-adapters <file>", "write the adapters of the last saved state of the run in --out, and end")
    .option("--export-only", "write the last saved state of the run in --out as a checkpoint, and end")
    .addHelpText(
      "after",
      "\nCtrl-C saves the state and ends; --resume goes on. kill -STOP and -CONT on the process in <out>/pid pause it.\n" +
        "\nExample:\n  $ fathom train --base models/smollm2 --data alpaca.json --method soft --exits 12,18,24,30 --out runs/soft\n",
    )
    .action(train);
}

async function train(options: TrainOptions, command: Command): Promise<void> {
  const { out, config, resume, exportOnly, exportAdapters: adapterFile, ...settings } = options;
  // Negated options default to true, which must not override a configuration file.
  if (command.getOptionValueSource("spinning") === "default") delete settings.spinning;
  const { parseConfig, readSettings, RESUMABLE } = await import("../train/config.ts");
  const { startRun, resumeRun, exportLastState, exportAdapters } = await import("../train/run.ts");
  if (exportOnly) {
    const { checkpoint, step } = await exportLastState(out);
    process.stdout.write(`step ${step}: ${checkpoint}\n`);
    return;
  }
  if (adapterFile !== undefined) {
    const { step } = await exportAdapters(out, adapterFile);
    process.stdout.write(`step ${step}: ${adapterFile}\n`);
    return;
  }
  const given = { ...(config === undefined ? {} : await readSettings(config)), ...settings };
  const { TrainProgress } = await import("./train-progress.ts");
  const progress = new TrainProgress();
  try {
    const result = await saveOnSignal((signal) => {
      if (!resume) return startRun(out, parseConfig(given, config ?? "options"), signal, progress.listener);
      const fixed = Object.keys(given).filter((name) => !RESUMABLE.some((resumable) => resumable === name));
      if (fixed.length > 0) {
        throw new CliError(`--resume keeps the run's settings; it cannot change ${fixed.join(", ")}`, { exitCode: 2 });
      }
      return resumeRun(out, given as ResumeSettings, signal, progress.listener satisfies TrainListener);
    });
    progress.stop();
    process.stdout.write(
      result.checkpoint === undefined
        ? `saved at step ${result.step} of ${result.steps}; go on with: fathom train --resume --out ${out}\n`
        : `step ${result.step}: ${result.checkpoint}\n`,
    );
  } finally {
    progress.stop();
  }
}

/** The first Ctrl-C or SIGTERM lets the step end and the state be saved; a second one ends the process. */
async function saveOnSignal<T>(work: (signal: AbortSignal) => Promise<T>): Promise<T> {
  const controller = new AbortController();
  const onSignal = (): void => {
    if (controller.signal.aborted) process.exit(130);
    controller.abort();
  };
  process.on("SIGINT", onSignal).on("SIGTERM", onSignal);
  try {
    return await work(controller.signal);
  } finally {
    process.off("SIGINT", onSignal).off("SIGTERM", onSignal);
  }
}

function scientific(text: string): number {
  const value = /^(\d+\.?\d*|\.\d+)(e[+-]?\d+)?$/i.test(text) ? Number(text) : Number.NaN;
  if (Number.isFinite(value)) return value;
  throw new InvalidArgumentError("It must be a number such as 2e-5.");
}

function numberList(text: string): number[] {
  return text.split(",").map((part) => scientific(part.trim()));
}
