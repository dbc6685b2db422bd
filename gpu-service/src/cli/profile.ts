import { type Command, Option } from "commander";
import type { PromptTemplate } from "../train/data/encode-record.ts";
import { interruptible } from "./interruptible.ts";
import { wholeNumber } from "./output.ts";

interface ProfileCommandOptions {
  data: string;
  template: PromptTemplate;
  records: number;
  threads?: number;
  json?: boolean;
}

/** Adds `fathom profile`. */
export function registerProfileCommand(program: Command): void {
  program
    .command("profile")
    .description("measure loss, agreement and time per token of every exit, and write them into the checkpoint")
    .argument("<dir>", "checkpoint folder")
    .requiredOption("--data <file>", "records, as fathom train takes them; those that it holds out are measured")
    .addOption(
      new Option("--template <name>", "how an instruction becomes a prompt")
        .choices(["alpaca", "chat"])
        .default("chat"),
    )
    .option("--records <n>", "held-out records at most", wholeNumber(1, 1_000_000), 48)
    .option("--threads <n>", "threads of the model (default: one per core, at most 8)", wholeNumber(1, 1024))
    .option("--json", "print JSON")
    .addHelpText("after", "\nExample:\n  $ fathom profile models/nested-int4 --data alpaca.json\n")
    .action(profile);
}

async function profile(dir: string, { json, ...options }: ProfileCommandOptions): Promise<void> {
  const { measureProfile } = await import("../eval/measure-profile.ts");
  const { ProgressBar } = await import("./progress-bar.ts");
  const bar = new ProgressBar();
  try {
    const result = await interruptible("the checkpoint is as it was", (signal) =>
      measureProfile(dir, { ...options, signal, onProgress: (done, total) => bar.update("scoring", done, total) }),
    );
    bar.stop();
    if (json) {
      process.stdout.write(`${JSON.stringify(result)}\n`);
      return;
    }
    process.stdout.write("depth  ms/token   loss  agreement\n");
    for (const { depth, ms_per_token: ms, loss = 0, agreement = 0 } of result.exits) {
      const cells = [ms.toFixed(2).padStart(8), loss.toFixed(3).padStart(5), agreement.toFixed(3).padStart(9)];
      process.stdout.write(`${String(depth).padStart(5)}  ${cells.join("  ")}\n`);
    }
  } finally {
    bar.stop();
  }
}
