import { requireExit } from "@fathom/shared";
import type { Command } from "commander";
import type { ServedModel } from "../text/served-model.ts";
import { depthList, tokenList } from "./output.ts";

const TOP = 5;

interface ProbeOptions {
  tokens: number[];
  depths: number[] | "all";
  json?: boolean;
}

/** Adds `fathom probe`. */
export function registerProbeCommand(program: Command): void {
  program
    .command("probe")
    .description("print the logits of the last position at every exit")
    .argument("<dir>", "checkpoint folder")
    .requiredOption("--tokens <ids>", "the prompt's token ids, such as 5,9,12", tokenList)
    .option(
      "--depths <depths>",
      "exits to look at, such as 12,18",
      (text) => (text === "all" ? text : depthList(text)),
      "all",
    )
    .option("--json", "print all logits as JSON")
    .addHelpText("after", "\nExample:\n  $ fathom probe models/smollm2-135m --tokens 5,9,12 --depths 12,18 --json\n")
    .action(probe);
}

async function probe(dir: string, options: ProbeOptions): Promise<void> {
  const { loadModel } = await import("../text/served-model.ts");
  const model = await loadModel(dir);
  try {
    const { exits } = model.engine.info;
    const depths = options.depths === "all" ? exits : options.depths;
    for (const depth of depths) requireExit(exits, depth, "--depths");
    const results = await model.engine.probe(options.tokens, depths);
    process.stdout.write(options.json ? toJson(results) : toText(results, model));
  } finally {
    await model.engine.close();
  }
}

type ProbeResults = Awaited<ReturnType<ServedModel["engine"]["probe"]>>;

function toJson(results: ProbeResults): string {
  return `${JSON.stringify({ exits: results.map(({ depth, logits }) => ({ depth, logits: Array.from(logits) })) })}\n`;
}

function toText(results: ProbeResults, { text }: ServedModel): string {
  const lines: string[] = [];
  for (const { depth, logits } of results) {
    lines.push(`depth ${depth}`);
    const best = Array.from(logits.entries())
      .sort(([i, x], [j, y]) => y - x || i - j)
      .slice(0, TOP);
    for (const [token, logit] of best) {
      const entry = text?.tokenText(token);
      const name = entry === undefined ? "" : `  ${JSON.stringify(entry)}`;
      lines.push(`  ${String(token).padStart(7)}  ${logit.toFixed(4).padStart(9)}${name}`);
    }
  }
  return `${lines.join("\n")}\n`;
}
