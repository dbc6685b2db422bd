import { createInterface } from "node:readline";
import { getLlama, LlamaLogLevel } from "node-llama-cpp";

// Reads a run per line ({prompt: token ids, tokens}) and prints the decode tokens/s of a greedy continuation.
const [modelPath, threads] = process.argv.slice(2);
const llama = await getLlama({ gpu: false, build: "never", logLevel: LlamaLogLevel.error });
const model = await llama.loadModel({ modelPath });
const context = await model.createContext({
  contextSize: 2048,
  threads: { ideal: Number(threads), min: Number(threads) },
});
const sequence = context.getSequence();
for await (const line of createInterface({ input: process.stdin })) {
  const { prompt, tokens } = JSON.parse(line);
  await sequence.clearHistory();
  let first = 0;
  let count = 0;
  for await (const _ of sequence.evaluate(prompt, { temperature: 0, yieldEogToken: true })) {
    count++;
    if (count === 1) first = performance.now();
    if (count === tokens) break;
  }
  console.log((1000 * (count - 1)) / (performance.now() - first));
}
process.exit(0);
