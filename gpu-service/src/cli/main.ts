#!/usr/bin/env node
import { createRequire } from "node:module";
import { Command } from "commander";
import { registerBenchCommand } from "./bench.ts";
import { registerCalibrateCommand } from "./calibrate.ts";
import { registerCardCommand } from "./card.ts";
import { registerExportCommand } from "./export.ts";
import { registerGenerateCommand } from "./generate.ts";
import { registerImportCommand } from "./import.ts";
import { registerInspectCommand } from "./inspect.ts";
import { oneLine, outputClosed, reportError, watchOutput } from "./output.ts";
import { registerProbeCommand } from "./probe.ts";
import { registerProfileCommand } from "./profile.ts";
import { registerPullCommand } from "./pull.ts";
import { registerQuantizeCommand } from "./quantize.ts";
import { registerServeCommand } from "./serve.ts";
import { registerTrainCommand } from "./train.ts";

const { version } = createRequire(import.meta.url)("../../package.json") as { version: string };

const program = new Command("fathom")
  .description("One nested LLaMA checkpoint, served at a depth chosen for every request.")
  .version(version)
  .exitOverride()
  .configureOutput({ outputError: (text, write) => write(`fathom: ${oneLine(text.replace(/^error: /, ""))}\n`) })
  .addHelpText("after", "\nExample:\n  $ fathom serve models/smollm2-135m --insecure\n");

registerPullCommand(program);
registerImportCommand(program);
registerInspectCommand(program);
registerServeCommand(program);
registerGenerateCommand(program);
registerProbeCommand(program);
registerBenchCommand(program);
registerTrainCommand(program);
registerCalibrateCommand(program);
registerCardCommand(program);
registerProfileCommand(program);
registerExportCommand(program);
registerQuantizeCommand(program);

watchOutput();
try {
  await program.parseAsync();
} catch (error) {
  process.exitCode = outputClosed.signal.aborted ? 0 : reportError(error);
}
