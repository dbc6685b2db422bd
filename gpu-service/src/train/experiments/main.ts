import { mkdir, readFile, writeFile } from "node:fs/promises";
import { join } from "node:path";
import { fileURLToPath } from "node:url";
import { Command } from "commander";
import { describeEnvironment } from "../environment.ts";
import { type ComparisonConfig, comparisonTable, sortedVsSft } from "./sorted-vs-sft.ts";

const EXPERIMENTS = fileURLToPath(new URL("../../../experiments/", import.meta.url));

const program = new Command("experiment").description("Trains small models to compare methods");

program
  .command("sorted-vs-sft")
  .description("one small LLaMA with every method: loss and accuracy per exit; writes into gpu-service/experiments")
  .addHelpText("after", "\nExample:\n  $ npm run experiment -- sorted-vs-sft\n")
  .action(async () => {
    const folder = join(EXPERIMENTS, "sorted-vs-sft");
    await mkdir(folder, { recursive: true });
    const config: ComparisonConfig = JSON.parse(await readFile(join(folder, "config.json"), "utf8"));
    const result = await sortedVsSft(config, (line) => process.stderr.write(`${line}\n`));
    const table = comparisonTable(result);
    const environment = await describeEnvironment();
    await writeFile(
      join(folder, "result.json"),
      `${JSON.stringify({ config, environment, ...result }, undefined, 2)}\n`,
    );
    await writeFile(join(folder, "result.md"), `${table}\n`);
    console.log(table);
  });

await program.parseAsync();
