import { parentPort, workerData } from "node:worker_threads";
import type { EncodeJob, EncodeResult, EncodeThreadData } from "./encode-thread.ts";
import { TextModel } from "./text-model.ts";

const port = parentPort;
if (!port) throw new Error("the encoder runs in a worker thread");
const { json, config } = workerData as EncodeThreadData;
const model = TextModel.from(json, config);

port.on("message", ({ id, text, addSpecialTokens }: EncodeJob) => {
  const result: EncodeResult = { id, ids: model.encode(text, addSpecialTokens) };
  port.postMessage(result);
});
