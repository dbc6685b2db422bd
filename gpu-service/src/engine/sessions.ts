import { headTensors, type Manifest } from "@fathom/shared";
import ort from "onnxruntime-node";
import { buildHead, HEAD } from "../graph/llama-segment.ts";
import type { HeadOutput } from "./executor.ts";
import type { LayerRange } from "./kv-layout.ts";
import type { ExecutionProvider } from "./types.ts";

export interface SessionOptions {
  dir: string;
  manifest: Manifest;
  /** Exits to serve; the segments between them are the units of execution. */
  exits: readonly number[];
  provider: ExecutionProvider;
  threads: number;
}

/** Every session has an arena of its own; without this each would keep what its longest prompt took. */
export const SHRINK_ARENA: ort.InferenceSession.RunOptions = {
  extra: { memory: { enable_memory_arena_shrinkage: "cpu:0" } },
};

/** The layers between neighbouring exits. */
export function segmentsOf(exits: readonly number[]): LayerRange[] {
  return exits.map((to, i) => ({ from: exits[i - 1] ?? 0, to }));
}

/** The layers of a segment. @throws RangeError when there is no such segment. */
export function rangeOf(segments: readonly LayerRange[], segment: number): LayerRange {
  const range = segments[segment];
  if (!range) throw new RangeError(`there is no segment ${segment}`);
  return range;
}

/** One session per exit; exits without a head of their own share one. */
export async function loadHeads(
  { manifest, exits }: SessionOptions,
  options: ort.InferenceSession.SessionOptions,
): Promise<Map<number, ort.InferenceSession>> {
  const byTensor = new Map<string, ort.InferenceSession>();
  const heads = new Map<number, ort.InferenceSession>();
  for (const depth of exits) {
    const { head } = headTensors(manifest.architecture, depth, manifest.exit_heads);
    const session = byTensor.get(head) ?? (await ort.InferenceSession.create(buildHead(manifest, depth), options));
    byTensor.set(head, session);
    heads.set(depth, session);
  }
  return heads;
}

/**
 * Runs the head of an exit over rows of the residual stream, float32 [R, size].
 * @throws RangeError when the exit is not served.
 */
export async function runHead(
  heads: ReadonlyMap<number, ort.InferenceSession>,
  depth: number,
  hidden: Float32Array,
  size: number,
  withLogits: boolean,
): Promise<HeadOutput> {
  const session = heads.get(depth);
  if (!session) throw new RangeError(`depth ${depth} is not served`);
  const feeds = { [HEAD.hidden]: new ort.Tensor("float32", hidden, [hidden.length / size, size]) };
  const fetches = withLogits ? [HEAD.token, HEAD.confidence, HEAD.logits] : [HEAD.token, HEAD.confidence];
  const outputs = await session.run(feeds, fetches);
  return {
    tokens: int64s(outputs, HEAD.token),
    confidence: floats(outputs, HEAD.confidence),
    logits: withLogits ? floats(outputs, HEAD.logits) : undefined,
  };
}

/** The deepest exit that shares its head with the one at `depth`. */
export function deepestWithHead(heads: ReadonlyMap<number, ort.InferenceSession>, depth: number): number {
  const session = heads.get(depth);
  let deepest = depth;
  for (const [other, head] of heads) if (head === session && other > deepest) deepest = other;
  return deepest;
}

/** Options of a session whose weights are mapped from the files in `dir`. */
export function sessionOptions({ dir, provider, threads }: SessionOptions): ort.InferenceSession.SessionOptions {
  return {
    executionProviders: provider === "cpu" ? ["cpu"] : [provider, "cpu"],
    intraOpNumThreads: threads,
    interOpNumThreads: 1,
    graphOptimizationLevel: "all",
    logSeverityLevel: 3,
    extra: {
      session: {
        model_external_initializers_file_folder_path: dir,
        // Sessions take turns. Spinning makes the kernels of one run hand over fast; a pool that went on spinning after its
        // run would steal the cores from the next session's.
        intra_op: { allow_spinning: "1" },
        force_spinning_stop: "1",
        // Weights outside the arena, which would round them up and keep what loading them took.
        use_device_allocator_for_initializers: "1",
      },
    },
  };
}

/** A float32 output. @throws TypeError when the graph gave none of that name. */
export function floats(outputs: ort.InferenceSession.OnnxValueMapType, name: string): Float32Array {
  const data = outputs[name]?.data;
  if (!(data instanceof Float32Array)) throw new TypeError(`the graph gave no float32 output '${name}'`);
  return data;
}

/** An int64 output. @throws TypeError when the graph gave none of that name. */
function int64s(outputs: ort.InferenceSession.OnnxValueMapType, name: string): BigInt64Array {
  const data = outputs[name]?.data;
  if (!(data instanceof BigInt64Array)) throw new TypeError(`the graph gave no int64 output '${name}'`);
  return data;
}
