import { Command } from "commander";
import { benchDepth } from "./depth.ts";
import { benchEdge } from "./edge/main.ts";
import { benchEngine } from "./engine/main.ts";
import { benchMemory } from "./memory.ts";
import { benchPeers } from "./peers.ts";
import { benchTraining } from "./training.ts";

const program = new Command("bench").description(
  "Measures Fathom on this machine; figures are medians of alternating runs",
);
const model = ["--model <dir>", "nested checkpoint to measure (default: SmolLM2-135M int4, fetched once)"] as const;

program
  .command("depth")
  .description("ms/token at every exit and at half of the layers, with the ratio to full depth (batch 1)")
  .option(...model)
  .option("--threads <n>", "intra-op threads", Number)
  .addHelpText("after", "\nExample:\n  $ npm run bench -- depth --threads 1\n")
  .action(benchDepth);

program
  .command("memory")
  .description("resident memory serving all exits against serving only full depth")
  .option(...model)
  .addHelpText("after", "\nExample:\n  $ npm run bench -- memory\n")
  .action(benchMemory);

program
  .command("peers")
  .description("decode tokens/s against node-llama-cpp on the same weights (installs it, 725 MB)")
  .option(...model)
  .option("--tokens <n>", "tokens per run", Number, 128)
  .option("--rounds <n>", "alternations", Number, 3)
  .option("--threads <n>", "threads of both (default: 1, then one per core)", Number)
  .addHelpText("after", "\nExample:\n  $ npm run bench -- peers --threads 1 --rounds 5\n")
  .action(benchPeers);

program
  .command("engine")
  .description("(a) batches, (b) mixed depths, (c) HTTP, (d) prompts beside prompts, (e) exit policies, (f) bandwidth")
  .option(...model)
  .option("--threads <n>", "intra-op threads", Number)
  .option("--rounds <n>", "alternations", Number, 5)
  .option("--only <letters>", "measure only these, such as ab")
  .option("--no-peers", "leave node-llama-cpp out")
  .addHelpText("after", "\nExample:\n  $ npm run bench -- engine --only ad --no-peers\n")
  .action(benchEngine);

program
  .command("edge")
  .description("what the router adds to calling a service: latency, CPU time, and whether it keeps up with a rate")
  .option("--requests <n>", "requests per target and round", Number, 300)
  .option("--rounds <n>", "alternations", Number, 5)
  .option("--rate <n>", "requests per second of the open loop", Number, 500)
  .option("--seconds <n>", "its length", Number, 10)
  .addHelpText("after", "\nExample:\n  $ npm run bench -- edge --rate 200\n")
  .action(benchEdge);

program
  .command("training")
  .description("tokens/s and memory of a SoFT step with 8 exits, 8 × 90 tokens, fp32")
  .option(...model)
  .option("--threads <n>", "intra-op threads", Number, 2)
  .option("--steps <n>", "steps to time", Number, 5)
  .addHelpText("after", "\nExample:\n  $ npm run bench -- training --steps 3\n")
  .action(benchTraining);

await program.parseAsync();
