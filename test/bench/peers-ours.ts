import { createInterface } from "node:readline";
import { loadEngine } from "@fathom/gpu-service/engine/load-engine.ts";
import { fullDepth } from "@fathom/shared";
import type { PeerRun } from "./peers.ts";

const [dir = "", threads = "1"] = process.argv.slice(2);
const engine = await loadEngine(dir, { threads: Number(threads) });
const depth = fullDepth(engine.info.exits);
let runs = 0;
for await (const line of createInterface({ input: process.stdin })) {
  const { prompt, tokens }: PeerRun = JSON.parse(line);
  const sampling = { temperature: 0, topP: 1, seed: 0 };
  for await (const event of engine.generate({
    id: `${runs++}`,
    prompt,
    depth,
    sampling,
    maxTokens: tokens,
    stopTokenIds: [],
  })) {
    if (event.type === "finished") console.log((1000 * (tokens - 1)) / event.timing.decodeMs);
  }
}
await engine.close();
