import { parentPort, workerData } from "node:worker_threads";
import { fullDepth } from "@fathom/shared";
import { EngineLoop } from "./engine-loop.ts";
import { loadExecutor } from "./executor.ts";
import { contextWithin } from "./kv-layout.ts";
import type { HostMessage, WorkerMessage, WorkerOptions } from "./protocol.ts";

// ONNX Runtime blocks its thread while it runs, so the engine has one of its own.
const port = parentPort;
if (!port) throw new Error("the engine runs in a worker thread");
const options = workerData as WorkerOptions;
const { dir, manifest, exits, provider, threads } = options;
const post = (message: WorkerMessage): void => port.postMessage(message);

const contextLength = contextWithin(options.kvBudget, manifest.architecture, fullDepth(exits));
const executor = await loadExecutor({ dir, manifest, exits, provider, threads });
const loop = new EngineLoop(executor, { maxConcurrent: options.maxConcurrent, kvBudget: options.kvBudget }, post);
port.on("message", (message: HostMessage) => loop.receive(message));
const info = { architecture: manifest.architecture, exits, contextLength, provider, threads };
post({ type: "ready", info, stats: loop.stats() });
await loop.run();
port.close();
