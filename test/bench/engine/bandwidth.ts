import { GraphBuilder } from "@fathom/gpu-service/graph/graph-builder.ts";
import ort from "onnxruntime-node";
import { median } from "../stats.ts";

const BYTES = 512 * 1024 * 1024;
const ROUNDS = 9;

/** Bytes per second at which this machine reads main memory: a sum over half a gigabyte, by the threads that also decode. */
export async function memoryBandwidth(threads: number): Promise<number> {
  const rows = 64;
  const b = new GraphBuilder("sum");
  const x = b.input("x", "float32", [rows, "n"]);
  b.output(b.node("ReduceSum", [x, b.int64s([1])], { as: "sum" }), "float32");
  const session = await ort.InferenceSession.create(b.encode(), {
    intraOpNumThreads: threads,
    executionProviders: ["cpu"],
  });
  const values = new Float32Array(BYTES / Float32Array.BYTES_PER_ELEMENT).fill(1);
  const feeds = { x: new ort.Tensor("float32", values, [rows, values.length / rows]) };
  const seconds: number[] = [];
  for (let i = 0; i < ROUNDS; i++) {
    const started = performance.now();
    await session.run(feeds);
    seconds.push((performance.now() - started) / 1000);
  }
  await session.release();
  return BYTES / median(seconds.slice(1));
}
