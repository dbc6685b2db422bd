import { setTimeout } from "node:timers/promises";
import { loadEngine } from "@fathom/gpu-service/engine/load-engine.ts";
import { referencePrompts } from "./model.ts";

// Prints the resident bytes of a process that has answered at each of the exits given on its command line.
const [dir = "", list = ""] = process.argv.slice(2);
const exits = list.split(",").map(Number);
const engine = await loadEngine(dir, { exits, threads: 2 });
const prompt = referencePrompts()[0] ?? [1];
for (const depth of exits) {
  const sampling = { temperature: 0, topP: 1, seed: 0 };
  const events = engine.generate({ id: `${depth}`, prompt, depth, sampling, maxTokens: 32, stopTokenIds: [] });
  for await (const _ of events);
}
globalThis.gc?.();
await setTimeout(500);
console.log(process.memoryUsage.rss());
await engine.close();
