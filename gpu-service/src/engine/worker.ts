import { parentPort, workerData } from "node:worker_threads";
import { EngineLoop } from "./engine-loop.ts";
import { loadExecutor } from "./executor.ts";
import type { HostMessage, WorkerMessage, WorkerOptions } from "./protocol.ts";

// ONNX Runtime blocks its thread while it runs, so the engine has one of its own.
const port = parentPort;
if (!port) throw new Error("the engine runs in a worker thread");
const options = workerData as WorkerOptions;
const { dir, manifest, exits, provider, threads } = options;
const post = (message: WorkerMessage): void => port.postMessage(message);

const executor = await loadExecutor({ dir, manifest, exits, provider, threads });
const loop = new EngineLoop(executor, { maxConcurrent: options.maxConcurrent, kvBudget: options.kvBudget }, post);
port.on("message", (message: HostMessage) => loop.receive(message));
post({ type: "ready", info: { architecture: manifest.architecture, exits, provider, threads }, stats: loop.stats() });
await loop.run();
port.close();
