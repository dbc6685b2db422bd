import { WeightFormat } from "@fathom/shared";
import { type Command, Option } from "commander";
import { interruptible } from "./interruptible.ts";
import { depthList } from "./output.ts";

interface PullCommandOptions {
  out?: string;
  exits?: number[];
  weights: WeightFormat;
  name?: string;
  force?: boolean;
}

/** Adds `fathom pull`. */
export function registerPullCommand(program: Command): void {
  program
    .command("pull")
    .description("download a model from the Hugging Face hub and make a nested checkpoint of it")
    .argument("<model>", "smollm2-135m, owner/name, owner/name@revision or owner/name/file.gguf")
    .option("--out <dir>", "folder to write the checkpoint to (default: models/ and the model's name)")
    .option("--exits <depths>", "depths where the model may stop (default: the quarters)", depthList)
    .addOption(
      new Option("--weights <format>", "how to store the matrices").choices(WeightFormat.options).default("int4"),
    )
    .option("--name <name>", "name of the checkpoint (default: the model's)")
    .option("--force", "replace the checkpoint in the folder")
    .addHelpText(
      "after",
      `
An interrupted download goes on where it stopped when the same command runs again.
Variables: HF_TOKEN for private models, HF_ENDPOINT for a mirror of the hub, NODE_USE_ENV_PROXY=1 to use the proxy
that HTTPS_PROXY names.

Example:
  $ fathom pull smollm2-135m --out models/smollm2-135m
`,
    )
    .action(pull);
}

async function pull(model: string, options: PullCommandOptions): Promise<void> {
  const { defaultFolderName, pullModel } = await import("../checkpoint/pull-model.ts");
  const { ProgressBar } = await import("./progress-bar.ts");
  const { out = `models/${defaultFolderName(model)}`, ...rest } = options;
  const bar = new ProgressBar();
  try {
    await interruptible("run the same command again to go on", (signal) =>
      pullModel(model, out, {
        ...rest,
        signal,
        onProgress: ({ stage, done, total }) =>
          bar.update(stage === "download" ? "downloading" : "importing  ", done, total),
        onNotice: (message) => process.stderr.write(`${message}\n`),
      }),
    );
  } finally {
    bar.stop();
  }
  process.stdout.write(`${model} is in ${out}\n`);
}
