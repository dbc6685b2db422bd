import { type Command, Option } from "commander";
import { EXPORT_DTYPES, type ExportDtype } from "../checkpoint/export/dtype.ts";
import { interruptible } from "./interruptible.ts";
import { wholeNumber } from "./output.ts";

interface ExportCommandOptions {
  out: string;
  dtype: ExportDtype;
  shardMb: number;
}

/** Adds `fathom export`. */
export function registerExportCommand(program: Command): void {
  program
    .command("export")
    .description("write a nested checkpoint as a Hugging Face folder that transformers loads")
    .argument("<dir>", "checkpoint folder")
    .requiredOption("--out <dir>", "folder to write, missing or empty")
    .addOption(
      new Option("--dtype <format>", "how to write the weights; fp32 keeps every value")
        .choices(EXPORT_DTYPES)
        .default("fp32"),
    )
    .option("--shard-mb <n>", "split the weights into files of at most this size", wholeNumber(1, 1_000_000_000), 5000)
    .addHelpText("after", "\nExample:\n  $ fathom export runs/soft/checkpoint --out smollm2-soft --dtype bf16\n")
    .action(exportModel);
}

async function exportModel(dir: string, { out, dtype, shardMb }: ExportCommandOptions): Promise<void> {
  const { exportCheckpoint } = await import("../checkpoint/export/export-checkpoint.ts");
  const { ProgressBar } = await import("./progress-bar.ts");
  const bar = new ProgressBar();
  try {
    const { parameters, files } = await interruptible("nothing was written", (signal) =>
      exportCheckpoint(dir, out, {
        dtype,
        shardBytes: shardMb * 1e6,
        signal,
        onProgress: (done, total) => bar.update("exporting", done, total),
      }),
    );
    bar.stop();
    const split = files.length > 1 ? ` in ${files.length} files` : "";
    process.stdout.write(`${(parameters / 1e6).toFixed(1)} M parameters as ${dtype}${split} in ${out}\n`);
  } finally {
    bar.stop();
  }
}
