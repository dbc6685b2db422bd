import { WeightFormat } from "@fathom/shared";
import { type Command, Option } from "commander";
import { interruptible } from "./interruptible.ts";
import { depthList } from "./output.ts";

interface QuantizeOptions {
  out: string;
  weights: WeightFormat;
  exits?: number[];
  force?: boolean;
}

/** Adds `fathom quantize`. */
export function registerQuantizeCommand(program: Command): void {
  program
    .command("quantize")
    .description("store a checkpoint's weights in another format")
    .argument("<dir>", "checkpoint folder")
    .requiredOption("--out <dir>", "folder to write the new checkpoint to")
    .addOption(
      new Option("--weights <format>", "how to store the matrices").choices(WeightFormat.options).default("int4"),
    )
    .option("--exits <depths>", "depths where the model may stop (default: the checkpoint's)", depthList)
    .option("--force", "replace the checkpoint in the folder")
    .addHelpText(
      "after",
      "\nExample:\n  $ fathom quantize runs/soft/checkpoint --out models/soft-int4 --weights int4\n",
    )
    .action(quantize);
}

async function quantize(dir: string, { out, weights, ...rest }: QuantizeOptions): Promise<void> {
  const { openCheckpoint } = await import("../checkpoint/open-checkpoint.ts");
  const { requantize } = await import("../checkpoint/requantize.ts");
  const { ProgressBar } = await import("./progress-bar.ts");
  const bar = new ProgressBar();
  try {
    const { name, lost } = await interruptible("nothing was written", async (signal) => {
      const checkpoint = await openCheckpoint(dir);
      const manifest = await requantize(checkpoint, out, weights, {
        ...rest,
        signal,
        onProgress: (done, total) => bar.update("quantising", done, total),
      });
      return { name: manifest.name, lost: checkpoint.manifest.thresholds !== undefined };
    });
    bar.stop();
    const note = lost ? "; thresholds hold for the old weights only: run fathom calibrate again" : "";
    process.stdout.write(`${name}: ${weights} in ${out}${note}\n`);
  } finally {
    bar.stop();
  }
}
