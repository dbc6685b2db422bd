import { createInterface } from "node:readline";
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

// Reads a run per line ({prompts: token ids each, tokens}) and prints the tokens/s of all greedy continuations together, prompts
// included, decoded in one continuous batch.
const [modelPath, threads, sequences] = process.argv.slice(2);
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath });
const context = await model.createContext({
  contextSize: 512,
  sequences: Number(sequences),
  batching: { dispatchSchedule: "nextCycle" },
  threads: { ideal: Number(threads), min: Number(threads) },
});
const all = Array.from({ length: Number(sequences) }, () => context.getSequence());
for await (const line of createInterface({ input: process.stdin })) {
  const { prompts, tokens } = JSON.parse(line);
  const started = performance.now();
  await Promise.all(
    prompts.map(async (prompt, i) => {
      await all[i].clearHistory();
      let count = 0;
      for await (const _ of all[i].evaluate(prompt, { temperature: 0, yieldEogToken: true }))
        if (++count === tokens) break;
    }),
  );
  console.log((1000 * prompts.length * tokens) / (performance.now() - started));
}
process.exit(0);
