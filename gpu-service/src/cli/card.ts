import { readFile } from "node:fs/promises";
import type { Command } from "commander";
import { CliError } from "./output.ts";

interface CardOptions {
  file: string;
  name?: string;
}

/** Adds `fathom card`. */
export function registerCardCommand(program: Command): void {
  program
    .command("card")
    .description("give a checkpoint a model card of its own")
    .argument("<dir>", "checkpoint folder")
    .requiredOption("--file <file>", "the card, Markdown; it becomes README.md of the checkpoint")
    .option("--name <name>", "a new name for the model")
    .addHelpText("after", "\nExample:\n  $ fathom card models/nested --file card.md --name my-nested\n")
    .action(card);
}

async function card(dir: string, { file, name }: CardOptions): Promise<void> {
  const { openCheckpoint } = await import("../checkpoint/open-checkpoint.ts");
  const { replaceCard } = await import("../checkpoint/replace-card.ts");
  let text: string;
  try {
    text = await readFile(file, "utf8");
  } catch (error) {
    throw new CliError(`${file}: cannot be read (${error instanceof Error ? error.message : error})`);
  }
  const checkpoint = await openCheckpoint(dir);
  await replaceCard(checkpoint, text, name);
  process.stdout.write(`${name ?? checkpoint.manifest.name}: card in ${dir}\n`);
}
