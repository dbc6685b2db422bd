import { blockLayout, DEFAULT_BLOCK_SIZE, type Manifest, offsetColumns, type StoredTensor } from "@fathom/shared";
import { type GraphBuilder, MICROSOFT } from "./graph-builder.ts";
import type { LlamaWeights } from "./llama-layer.ts";

/** MatMulNBits with int8 activations: the fastest CPU kernels. */
const INT8_ACTIVATIONS = 4;
/** MatMulNBits with float32 activations; int8 weights have no such kernel for a few rows and would be unpacked each time. */
const FLOAT32_ACTIVATIONS = 1;

/**
 * Eight bits are too few for what attention has gathered in the lower half of the layers, from where an error is carried through
 * all that follow (docs/decisions/018); everywhere else they cost little.
 */
function accuracyLevel({ architecture }: Manifest, name: string, bits: 4 | 8): number {
  const layer = /^layers\.(\d+)\.attn\.o$/.exec(name)?.[1];
  const low = layer !== undefined && Number(layer) < architecture.layers / 2;
  return bits === 4 && low ? FLOAT32_ACTIVATIONS : INT8_ACTIVATIONS;
}

/** Looks a tensor up in the manifest. @throws Error naming the tensor when the checkpoint lacks it. */
function storedTensor(manifest: Manifest, name: string): StoredTensor {
  const tensor = manifest.tensors[name];
  if (!tensor) throw new Error(`the checkpoint has no tensor '${name}'`);
  return tensor;
}

/** Block length along K of a quantised tensor. */
function blockSize(manifest: Manifest): number {
  return manifest.quantization.block_size ?? DEFAULT_BLOCK_SIZE;
}

/** The checkpoint's weights as initializers that point into its files. */
export function storedWeights(manifest: Manifest): LlamaWeights {
  return {
    linear: (b, name, x) => linear(b, manifest, name, x),
    norm: (b, name) => normWeight(b, manifest, name),
  };
}

/** y = x · Wᵀ for a stored [N, K] matrix; x is [.., K], y is [.., N], float32. */
function linear(b: GraphBuilder, manifest: Manifest, name: string, x: string): string {
  const tensor = storedTensor(manifest, name);
  const [n = 0, k = 0] = tensor.shape;
  switch (tensor.format) {
    case "fp32":
    case "fp16":
      return b.node("FusedMatMul", [x, floatWeight(b, manifest, name)], {
        attributes: { transB: 1 },
        domain: MICROSOFT,
      });
    case "int4":
    case "int8": {
      const bits = tensor.format === "int4" ? 4 : 8;
      const block = blockSize(manifest);
      const offsets = offsetColumns(blockLayout(manifest.quantization, name), tensor.format, k);
      const columns = k + offsets;
      const blocks = Math.ceil(columns / block);
      const activations = offsets > 0 ? withBlockSums(b, x, k, block) : x;
      const data = b.initializer({
        name: `${name}.data`,
        type: "uint8",
        shape: [n, blocks, (block * bits) / 8],
        data: tensor.data,
      });
      const inputs = [activations, data, scales(b, tensor, name, [n * blocks])];
      if (tensor.zero_points) {
        const shape = [n * Math.ceil((blocks * bits) / 8)];
        inputs.push(b.initializer({ name: `${name}.zero_points`, type: "uint8", shape, data: tensor.zero_points }));
      }
      const attributes = {
        K: columns,
        N: n,
        bits,
        block_size: block,
        accuracy_level: accuracyLevel(manifest, name, bits),
      };
      return b.node("MatMulNBits", inputs, { attributes, domain: MICROSOFT });
    }
  }
}

/** Rows of the embedding: `tokens` int64 [S] → float32 [S, H]. A tied head reads the same bytes. */
export function embedding(b: GraphBuilder, manifest: Manifest, tokens: string): string {
  const name = "embed";
  const tensor = storedTensor(manifest, name);
  const [vocab = 0, hidden = 0] = tensor.shape;
  switch (tensor.format) {
    case "fp32":
    case "fp16":
      return b.node("Gather", [floatWeight(b, manifest, name), tokens], { attributes: { axis: 0 } });
    case "int4":
    case "int8": {
      const bits = tensor.format === "int4" ? 4 : 8;
      const block = blockSize(manifest);
      const data = b.initializer({
        name: `${name}.data`,
        type: "uint8",
        shape: [vocab, (hidden * bits) / 8],
        data: tensor.data,
      });
      const inputs = [data, tokens, scales(b, tensor, name, [vocab, Math.ceil(hidden / block)])];
      const attributes = { gather_axis: 0, quantize_axis: 1, block_size: block, bits };
      return b.node("GatherBlockQuantized", inputs, { attributes, domain: MICROSOFT });
    }
  }
}

/** x followed by the sums of its blocks, [.., K + K/block]: what the offset columns multiply with. */
function withBlockSums(b: GraphBuilder, x: string, k: number, block: number): string {
  const blocks = k / block;
  const indicator = new Float32Array(k * blocks);
  for (let i = 0; i < k; i++) indicator[i * blocks + Math.floor(i / block)] = 1;
  const sums = b.node("MatMul", [x, b.matrix(`block_sums.${k}`, indicator, [k, blocks])]);
  return b.node("Concat", [x, sums], { attributes: { axis: -1 } });
}

/** A norm's weight vector, always stored as float32. */
function normWeight(b: GraphBuilder, manifest: Manifest, name: string): string {
  const tensor = storedTensor(manifest, name);
  return b.initializer({ name, type: "float32", shape: tensor.shape, data: tensor.data });
}

/** A float matrix as float32; fp16 is widened by constant folding when the session loads. */
function floatWeight(b: GraphBuilder, manifest: Manifest, name: string): string {
  const tensor = storedTensor(manifest, name);
  const type = tensor.format === "fp16" ? "float16" : "float32";
  const weight = b.initializer({ name, type, shape: tensor.shape, data: tensor.data });
  return type === "float32" ? weight : b.node("Cast", [weight], { attributes: { to: 1 } });
}

/** Scales are stored as float16 and widened at load: the kernels take the activations' type. */
function scales(b: GraphBuilder, tensor: StoredTensor, name: string, shape: readonly number[]): string {
  if (!tensor.scales) throw new Error(`the quantised tensor '${name}' has no scales`);
  const stored = b.initializer({ name: `${name}.scales`, type: "float16", shape, data: tensor.scales });
  return b.node("Cast", [stored], { attributes: { to: 1 } });
}
