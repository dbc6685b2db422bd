import { WeightFormat } from "@fathom/shared";
import { type Command, Option } from "commander";
import { interruptible } from "./interruptible.ts";
import { depthList } from "./output.ts";

interface ImportCommandOptions {
  out: string;
  exits?: number[];
  weights: WeightFormat;
  name?: string;
  force?: boolean;
}

/** Adds `fathom import`. */
export function registerImportCommand(program: Command): void {
  program
    .command("import")
    .description("make a nested checkpoint from a Hugging Face folder or a GGUF file")
    .argument("<source>", "folder with config.json and safetensors, or a .gguf file")
    .requiredOption("--out <dir>", "folder to write the checkpoint to")
    .option("--exits <depths>", "depths where the model may stop (default: the quarters)", depthList)
    .addOption(
      new Option("--weights <format>", "how to store the matrices").choices(WeightFormat.options).default("int4"),
    )
    .option("--name <name>", "name of the checkpoint (default: the source's)")
    .option("--force", "replace the checkpoint in the folder")
    .addHelpText(
      "after",
      "\nExample:\n  $ fathom import SmolLM2-135M-Instruct --out models/smollm2-135m --exits 12,18,24,30 --weights int4\n",
    )
    .action(importModel);
}

async function importModel(source: string, options: ImportCommandOptions): Promise<void> {
  const { importCheckpoint } = await import("../checkpoint/import-checkpoint.ts");
  const { ProgressBar } = await import("./progress-bar.ts");
  const { out, ...rest } = options;
  const bar = new ProgressBar();
  try {
    const manifest = await interruptible("nothing was written", (signal) =>
      importCheckpoint(source, out, {
        ...rest,
        signal,
        onProgress: (done, total) => bar.update("importing", done, total),
      }),
    );
    bar.stop();
    process.stdout.write(`${manifest.name}: exits ${manifest.exits.join(", ")} in ${out}\n`);
  } finally {
    bar.stop();
  }
}
