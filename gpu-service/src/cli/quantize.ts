import { WeightFormat } from "@fathom/shared";
import { type Command, Option } from "commander";
import type { Checkpoint } from "../checkpoint/open-checkpoint.ts";
import { selectMatrices } from "../checkpoint/select-matrices.ts";
import type { PromptTemplate } from "../train/data/encode-record.ts";
import { interruptible } from "./interruptible.ts";
import { CliError, depthList, wholeNumber } from "./output.ts";

interface QuantizeOptions {
  out: string;
  weights: WeightFormat;
  exits?: number[];
  force?: boolean;
  calibrate?: string;
  calibrationTokens: number;
  template: PromptTemplate;
  offsets?: string | false;
  keep?: string;
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
    .option("--calibrate <file>", "fit int4 layers to records (GPTQ) instead of rounding; held-out ones are left out")
    .option("--calibration-tokens <n>", "tokens of those records", wholeNumber(1, 10_000_000), 16_384)
    .addOption(
      new Option("--template <name>", "how an instruction becomes a prompt")
        .choices(["alpaca", "chat"])
        .default("chat"),
    )
    .option("--no-offsets", "int4 blocks without an offset: smaller and faster; for weights that were not int4 before")
    .option("--offsets <matrices>", "only these matrices with offsets, such as layers:0-5,attn.o,mlp.down")
    .option(
      "--keep <dir>",
      "matrices that have the values of this checkpoint are stored byte for byte as it stores them",
    )
    .option("--force", "replace the checkpoint in the folder")
    .addHelpText(
      "after",
      "\nExample:\n  $ fathom quantize runs/soft/checkpoint --out models/soft-int4 --weights int4\n",
    )
    .action(quantize);
}

async function quantize(dir: string, options: QuantizeOptions): Promise<void> {
  const { out, weights, calibrate, calibrationTokens: tokens, template, offsets, keep, ...rest } = options;
  const { availableParallelism } = await import("node:os");
  const { quantizeCalibrated } = await import("../quantize/quantize-checkpoint.ts");
  const { openCheckpoint } = await import("../checkpoint/open-checkpoint.ts");
  const { unchangedMatrices } = await import("../checkpoint/kept-tensors.ts");
  const { requantize } = await import("../checkpoint/requantize.ts");
  const { weightPlan } = await import("../checkpoint/weight-plan.ts");
  const { ProgressBar } = await import("./progress-bar.ts");
  const bar = new ProgressBar();
  try {
    const { name, lost } = await interruptible("nothing was written", async (signal) => {
      const checkpoint = await openCheckpoint(dir);
      const shared = {
        ...rest,
        ...(offsets === undefined
          ? {}
          : { offsets: offsets === false ? false : selectedMatrices(offsets, checkpoint) }),
        ...(keep === undefined
          ? {}
          : { keep: await unchangedMatrices(checkpoint, await openCheckpoint(keep), weightPlan(weights)) }),
        signal,
        onProgress: (done: number, total: number) => bar.update("quantising", done, total),
      };
      const manifest =
        calibrate === undefined
          ? await requantize(checkpoint, out, weights, shared)
          : await quantizeCalibrated(
              checkpoint,
              out,
              weights,
              { data: calibrate, template, tokens, threads: availableParallelism() },
              shared,
            );
      return { name: manifest.name, lost: checkpoint.manifest.thresholds !== undefined };
    });
    bar.stop();
    const note = lost ? "; thresholds hold for the old weights only: run fathom calibrate again" : "";
    process.stdout.write(`${name}: ${weights} in ${out}${note}\n`);
  } finally {
    bar.stop();
  }
}

function selectedMatrices(list: string, { manifest }: Checkpoint): Set<string> {
  try {
    return selectMatrices(list, manifest.architecture);
  } catch (error) {
    if (error instanceof RangeError) throw new CliError(`--offsets: ${error.message}`, { exitCode: 2 });
    throw error;
  }
}
